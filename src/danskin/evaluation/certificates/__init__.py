"""Bounds of a network's outputs over a region of inputs: intervals, linear relaxations, and their parts."""
