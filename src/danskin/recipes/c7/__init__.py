"""LECTURE row C7: recipe, published claims, the figure's code."""
