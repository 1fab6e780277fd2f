"""What travels with the package besides code: trained models and stored studies (`data`), and the notebooks.

In an installed package they lie inside it; in a checkout they are the folders of these names beside it.
"""

from importlib.resources import files
from pathlib import Path


def folder(name: str) -> Path:
    """The folder `data` or `notebooks`. Raises ValueError if the package came without it."""
    package = Path(str(files("zamba_lab")))
    for place in (package / "_resources" / name, package.parent / name):
        if place.is_dir():
            return place
    raise ValueError(f"this installation of zamba_lab has no folder {name!r}: install it again from a wheel or a checkout")
