"""LECTURE row F6: recipe, claims, the figure's code."""
