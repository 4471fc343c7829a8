"""Recipes that danskin ships, by name."""

from pathlib import Path

#: name -> YAML file.
RECIPES: dict[str, Path] = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}
