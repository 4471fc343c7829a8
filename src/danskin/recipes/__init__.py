"""Recipes that danskin ships, by name: one YAML file each, read by `danskin.run.recipe`."""

from danskin.run.recipe import RECIPES

__all__ = ["RECIPES"]
