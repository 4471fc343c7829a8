"""python -m danskin."""

from danskin.cli import main

main()
