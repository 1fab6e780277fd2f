"""Fetching a published model by its id: the files that are needed and no others, into the hub client's own cache."""

import hashlib
import re
from pathlib import Path

from zamba_lab.checkpoints.errors import CheckpointError
from zamba_lab.checkpoints.files import COMPANIONS, CONFIG, PROGRESS_ABOVE, SINGLE, TOKENIZERS, WEIGHTS, read_index

LOG_IN = "log in with `hf auth login`, or put a token into HF_TOKEN"


def is_hub_id(source: str) -> bool:
    """Whether a string reads as "organisation/name" or "organisation/name@revision"."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", source) is not None


def fetch(source: str) -> Path:
    """The local folder of a hub id, downloaded as far as it is not there yet.

    The client's settings hold as its users know them: cache folder, token, offline mode; a connection that drops is
    resumed where it broke. A file whose name in the cache is its SHA-256, as weights have, is compared with it once,
    after its download. Raises CheckpointError, with what to do about it, if the model cannot be had.
    """
    from huggingface_hub import snapshot_download

    repo, _, revision = source.partition("@")

    def download(at: str | None, *names: str) -> Path:
        folder = Path(snapshot_download(repo, revision=at, allow_patterns=list(names)))
        if folder.is_dir():  # there is none if the repository has no file of these names
            check_new(folder, old)
        return folder

    try:
        old = cached_blobs(repo)
        small = [CONFIG, *COMPANIONS, TOKENIZERS[0]]
        folder = download(revision or None, *small)
        commit = folder.name  # a branch may move meanwhile: all files are of one commit
        if not (folder / CONFIG).is_file():
            raise CheckpointError(f"{source!r} is a repository without a {CONFIG}: it holds no model to open")
        if not (folder / TOKENIZERS[0]).is_file():
            small += TOKENIZERS
        for name in WEIGHTS:
            download(commit, *small, name)
            if (folder / name).is_file():
                return download(commit, *small, *read_index(folder / name)) if name.endswith(".json") else folder
        return folder
    except CheckpointError:
        raise
    except Exception as error:  # the client passes on the errors of the libraries under it
        raise CheckpointError(
            f"{source!r} is no folder here, and as a hub id it cannot be fetched: {_advice(error, repo, revision or 'main')}"
        ) from error


def cached_blobs(repo: str) -> set[str]:
    """The names of the files that the client's cache holds of a repository."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    blobs = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model") / "blobs"
    return {path.name for path in blobs.iterdir()} if blobs.is_dir() else set()


def check_new(folder: Path, old: set[str]) -> None:
    """Hold each file of a snapshot that is not among the old ones to its SHA-256, where it has that for a name."""
    for link in folder.iterdir():
        blob = link.resolve()
        if blob.name in old or not re.fullmatch("[0-9a-f]{64}", blob.name):
            continue
        if (digest := _sha256(blob, link.name)) != blob.name:
            size = blob.stat().st_size
            link.unlink()
            blob.unlink(missing_ok=True)
            raise CheckpointError(
                f"{link.name} came damaged from the hub: its {size} bytes have the SHA-256 {digest}, "
                f"not {blob.name}. It was removed: load again to download it again"
            )
        old.add(blob.name)


def _sha256(path: Path, name: str) -> str:
    from tqdm import tqdm

    size, digest = path.stat().st_size, hashlib.sha256()
    with (
        path.open("rb") as file,
        tqdm(total=size, unit="B", unit_scale=True, desc=f"checking {name}", disable=size < PROGRESS_ABOVE) as bar,
    ):
        while piece := file.read(2**24):
            digest.update(piece)
            bar.update(len(piece))
    return digest.hexdigest()


def _advice(error: Exception, repo: str, revision: str) -> str:
    """What went wrong, and what to do about it. The client's classes overlap: the narrower ones come first."""
    from huggingface_hub import constants, errors

    page, first_line = f"{constants.ENDPOINT}/{repo}", _first_line(error)
    without = f"Without a network, load a folder that holds {CONFIG} and {SINGLE}, or a model of this project: load('zamba2-nano')"
    if isinstance(error, errors.GatedRepoError):
        return f"{repo} is gated. Accept its licence at {page}, then {LOG_IN} of the account that did"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"the hub has no model {repo}, or shows it to some accounts only. Check the name; if it is private, {LOG_IN} "
            "of an account that may read it"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}. A revision is a branch, a tag or a whole commit hash: see {page}"
    if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
        return f"the hub refuses the token it was sent ({first_line}). To have another, {LOG_IN}"
    if isinstance(error, errors.LocalEntryNotFoundError) and constants.HF_HUB_OFFLINE:
        return (
            f"not all of its files are in {constants.HF_HUB_CACHE}, and offline mode forbids asking. Unset HF_HUB_OFFLINE "
            f"to download them. {without}"
        )
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            f"{constants.ENDPOINT} did not answer as a hub should ({_cause(error)}), and not all files are in the cache. "
            f"Check the connection and load again. {without}"
        )
    if isinstance(error, errors.HFValidationError):
        return f"{first_line}. A hub id is 'organisation/name' or 'organisation/name@revision'"
    return f"the download broke off ({type(error).__name__}: {first_line}). Files that came whole are kept: load again to go on. {without}"


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")
