"""What is held while a run goes on: the folder, against a second process, and the signals, until a step is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: two processes that write one run would spoil it. The lock goes with its process."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"one process trains in a folder at a time: another one is at work in {str(folder)!r}; wait for it or stop it"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def held_interrupts() -> Iterator[list[int]]:
    """Collect Ctrl-C and a polite kill, to be acted on between two steps; a second Ctrl-C acts at once."""
    caught: list[int] = []

    def note(number, frame):
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may listen to signals
        yield caught
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
