"""What row F6 will cost, before it is started."""

from danskin.recipes.critic_cells import estimate

__all__ = ["estimate"]
