"""LECTURE row G3: recipe, published claims, the figure's code."""
