"""What stands behind a callable: the modules that it reaches, their state as it was found, and its faults."""

from danskin.callables.constant import constant_weights, once
from danskin.callables.copies import copied
from danskin.callables.faults import answerable, said
from danskin.callables.keep import Found, alone, surely
from danskin.callables.reach import Reach, reach

__all__ = ["Found", "Reach", "alone", "answerable", "constant_weights", "copied", "once", "reach", "said", "surely"]
