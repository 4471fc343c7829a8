"""LECTURE row C10: recipe, published claims, the figure's code."""
