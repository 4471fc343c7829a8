"""What stands behind a callable: the modules that it reaches, and their state as it was found."""

from danskin.callables.keep import Found, alone, surely
from danskin.callables.reach import Reach, reach

__all__ = ["Found", "Reach", "alone", "reach", "surely"]
