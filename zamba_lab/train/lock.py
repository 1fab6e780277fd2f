"""The lock of a run's folder, against a second process, and signals deferred until a step is done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from zamba_lab.writing import locked


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: two processes that write one run would corrupt it. The lock ends with its process.

    Raises ValueError if another process holds it, OSError where the file system has no locks.
    """
    with ExitStack() as lock:
        try:
            lock.enter_context(locked(folder / "lock"))
        except TimeoutError as error:
            raise ValueError(
                f"one process trains in a folder at a time: another one is at work in {str(folder)!r}; wait for it or stop it"
            ) from error
        yield


@contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, to be acted on between two steps; a second one interrupts immediately."""
    received: list[int] = []

    def note(number, frame):
        if received:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield received
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
