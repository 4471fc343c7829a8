"""Ctrl-C and SIGTERM: what is at hand is finished or given up, and what was found is kept."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def _handled(handler: Callable[[int, Any], None], *signals: int) -> Iterator[None]:
    """Another handler for a while; python lets the main thread alone set one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, before in old.items():
            signal.signal(number, before)


@contextlib.contextmanager
def term_as_interrupt() -> Iterator[None]:
    """SIGTERM ends as Ctrl-C does: with KeyboardInterrupt."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    with _handled(interrupt, signal.SIGTERM):
        yield


@contextlib.contextmanager
def stop_between_steps() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C (or SIGTERM) is remembered until the step is done; a second one breaks off at once."""
    asked = threading.Event()

    def remember(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    with _handled(remember, signal.SIGINT, signal.SIGTERM):
        yield asked.is_set
