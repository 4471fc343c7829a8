"""LECTURE row C14: recipe, published claims, the figure's code."""
