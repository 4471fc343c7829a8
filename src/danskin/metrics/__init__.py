"""Numbers about finished things, as sums -> value."""

from danskin.metrics.share import Share, wilson

__all__ = ["Share", "wilson"]
