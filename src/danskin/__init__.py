"""danskin: min-max machine learning in PyTorch."""

__version__ = "0.1.0.dev0"
