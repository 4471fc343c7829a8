"""LECTURE row G1: games, published claims."""
