"""LECTURE row E3: cases, published rates, the figure's code."""
