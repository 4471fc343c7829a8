"""Recipes that danskin ships, by name: one YAML file each, read by `danskin.run.config`."""

from danskin.run.config import RECIPES

__all__ = ["RECIPES"]
