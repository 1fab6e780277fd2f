"""Calling a learner's function: it may raise, loop for ever, or change what it was given."""

import copy
import ctypes
import threading
from collections.abc import Callable
from typing import Any

import torch

AGAIN = 1.0  # seconds after which a function that went on is stopped again


class TimeUp(BaseException):
    """Raised inside a function that runs for too long. Not an Exception, so `except Exception` lets it pass."""


def limited(function: Callable, arguments: tuple, seconds: float) -> Any:
    """function(*arguments). Raises TimeoutError if it takes more than so many seconds.

    Another thread raises TimeUp in this one, between two steps of Python: that works in notebooks and on every system, but one call
    into a library that takes for ever is not interrupted.
    """
    here, done = ctypes.c_ulong(threading.get_ident()), threading.Event()

    def watch() -> None:
        wait = seconds
        while not done.wait(wait):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(here, ctypes.py_object(TimeUp))
            wait = AGAIN

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        try:
            return function(*arguments)
        finally:
            done.set()
            watcher.join()
    except TimeUp:
        done.set()
        watcher.join()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(here, None)  # one that has not been raised yet
        raise TimeoutError(f"it was stopped after {seconds:g} seconds") from None


def copied(arguments: tuple) -> tuple:
    return tuple(argument.clone() if isinstance(argument, torch.Tensor) else copy.deepcopy(argument) for argument in arguments)


def changed(before: tuple, after: tuple, names: list[str]) -> list[str]:
    """The names of the tensors among the arguments that a call changed."""
    return [
        name
        for name, old, new in zip(names, before, after, strict=True)
        if isinstance(old, torch.Tensor) and not (old.shape == new.shape and torch.equal(old, new))
    ]
