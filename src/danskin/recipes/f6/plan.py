"""Row F6 at a scale, resolved."""

from danskin.recipes.sampling_study import plan_of

__all__ = ["plan_of"]
