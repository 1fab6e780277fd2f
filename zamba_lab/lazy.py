"""What is imported when it is first used: the names of a package, so that importing it costs nothing, and optional libraries."""

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
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


def needed(module: str, what: str, extra: str = "", package: str = "") -> ModuleType:
    """An optional library. Raises ModuleNotFoundError that says what needs it and what to install.

    extra: of this package, that brings it. package: its name where that is another than the module's.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = package or module.split(".")[0]
        ours = f"pip install 'zamba-lab[{extra}]', or " if extra else ""
        raise ModuleNotFoundError(
            f"{what} needs {package}, which is not installed: {ours}pip install {package}", name=error.name
        ) from error
