"""LECTURE row C4: recipe, published claims, the figure's code."""
