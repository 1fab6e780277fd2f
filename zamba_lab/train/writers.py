"""The same rows for other eyes: TensorBoard, trackio, Weights & Biases. Each is a function of a row, as `train` takes them.

    train(..., on_row=[tensorboard("runs/x/tensorboard")])

The libraries are optional and imported here only; the local files of metrics.py are written in any case. A run is begun there with
its first row, so that one that is refused leaves nothing. Anything else that takes a row will do: `print`, a list's `append`, a
figure's update.
"""

from pathlib import Path
from types import ModuleType

from zamba_lab.lazy import needed
from zamba_lab.train.metrics import Row, Writer


def tensorboard(folder: str | Path) -> Writer:
    """Scalars and texts as TensorBoard's event files in a folder. Rows of steps that are made again replace the old ones."""
    needed("tensorboard", "writing for TensorBoard")
    library, boards = needed("torch.utils.tensorboard", "writing for TensorBoard"), []

    def write(row: Row) -> None:
        if not boards:
            boards.append(library.SummaryWriter(str(folder), purge_step=row["step"]))
        for name, value in _measured(row).items():
            (boards[0].add_text if isinstance(value, str) else boards[0].add_scalar)(name, value, row["step"])
        boards[0].flush()

    return write


def trackio(project: str, name: str | None = None, **more) -> Writer:
    """A run of trackio, local first. more: what its `init` takes."""
    return _logged(needed("trackio", "a run of trackio"), project, name, more)


def wandb(project: str, name: str | None = None, **more) -> Writer:
    """A run of Weights & Biases. more: what its `init` takes, e.g. mode="offline"."""
    return _logged(needed("wandb", "a run of Weights & Biases"), project, name, more)


WRITERS = {"tensorboard": tensorboard, "trackio": trackio, "wandb": wandb}


def _logged(library: ModuleType, project: str, name: str | None, more: dict) -> Writer:
    begun = []

    def write(row: Row) -> None:
        if not begun:
            begun.append(library.init(project=project, name=name, **more))
        library.log(_measured(row), step=row["step"])

    return write


def _measured(row: Row) -> dict:
    return {name: value for name, value in row.items() if name != "step" and value is not None}
