"""Row F6, carried out."""

from danskin.recipes.sampling_study import run_study

__all__ = ["run_study"]
