"""What row E6 will cost, before it is started."""

from danskin.recipes.sampling_study import estimate

__all__ = ["estimate"]
