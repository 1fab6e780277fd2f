"""Fetching a published model by its id: the files that are needed and no others, into the hub client's own cache."""

from __future__ import annotations

import re
from pathlib import Path

from zamba_lab.checkpoints.errors import CheckpointError
from zamba_lab.checkpoints.files import CONFIG, INDEX, PICKLED, SINGLE, TOKENIZER, read_index

SMALL_FILES = (CONFIG, INDEX, TOKENIZER)


def is_hub_id(source: str) -> bool:
    """Whether a string reads as "organisation/name" or "organisation/name@revision"."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", source) is not None


def fetch(source: str) -> Path:
    """The local folder of a hub id, downloaded as far as it is not there yet.

    The client's settings hold as its users know them: cache folder, token, offline mode; an interrupted download is
    resumed. Raises CheckpointError if the model cannot be had.
    """
    from huggingface_hub import snapshot_download

    repo, _, revision = source.partition("@")

    def download(*names: str) -> Path:
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=list(names)))

    try:
        folder = download(*SMALL_FILES)
        if (folder / INDEX).is_file():
            return download(*SMALL_FILES, *read_index(folder / INDEX))
        folder = download(*SMALL_FILES, SINGLE)
        return folder if (folder / SINGLE).is_file() else download(*SMALL_FILES, PICKLED)
    except CheckpointError:
        raise
    except Exception as error:  # the client passes on the errors of the libraries under it
        raise CheckpointError(
            f"{source!r} is no folder here, and as a hub id it cannot be fetched: {_first_line(error)} "
            f"({type(error).__name__}). Without a network, load a folder that holds {CONFIG} and {SINGLE}, or the "
            f"model that comes with the project: load('zamba2-nano')") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]
