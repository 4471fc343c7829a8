"""python -m danskin.cli."""

from danskin.cli import main

main()
