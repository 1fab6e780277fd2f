"""`zamba-lab atlas`: arguments to `atlas`."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes, and what it runs."""
    parser.add_argument("source", help="a shipped model (zamba2-nano), a folder or a hub id")
    parser.add_argument("-o", "--folder", type=Path, required=True, help="where atlas.html goes, and pages/ with what is done")
    parser.add_argument("--texts", metavar="FOLDER", help="texts to measure on; the project's held-out ones if left out")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs, not what it says")
    parser.set_defaults(run=main)


def main(arguments: argparse.Namespace) -> int:
    """Write the atlas and say where it is."""
    from zamba_lab import atlases, corpora
    from zamba_lab.checkpoints import load
    from zamba_lab.tokenizer.texts import decode

    texts = [decode(content) for _, content in corpora.Folder(arguments.texts).read()] if arguments.texts else None
    size, name = atlases.QUICK if arguments.quick else atlases.FULL, Path(arguments.source).name
    print(atlases.atlas(load(arguments.source), arguments.folder, texts, size, name, progress=True))
    return 0
