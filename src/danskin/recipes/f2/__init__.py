"""LECTURE row F2: recipe, claims, the figure's code."""
