"""Names of a package that are loaded from its modules when they are first used, so that importing it costs nothing."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy(package: str, names: dict[str, str], modules: str = "") -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """`__all__`, `__getattr__` and `__dir__` of a package.

    names: module -> the names that it defines, in one text with spaces. modules: those that are attributes themselves.
    """
    home = {name: module for module, several in names.items() for name in several.split()}

    def getattr_(name: str) -> Any:
        if name in home:
            value = getattr(import_module(f"{package}.{home[name]}"), name)
        elif name in modules.split():
            value = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    return list(home), getattr_, lambda: sorted([*vars(sys.modules[package]), *home])
