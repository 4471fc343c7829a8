"""LECTURE row C8: recipe, published claims, the figure's code."""
