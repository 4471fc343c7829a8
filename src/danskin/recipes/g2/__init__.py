"""LECTURE row G2, its finite games: recipe, published claims."""
