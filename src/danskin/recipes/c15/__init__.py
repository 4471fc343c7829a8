"""LECTURE row C15: recipe, published claims, the figure's code."""
