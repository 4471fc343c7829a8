"""LECTURE row E6: cases, claims, the figure's code."""
