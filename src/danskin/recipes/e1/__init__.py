"""LECTURE row E1: cases, claims, the figure's code."""
