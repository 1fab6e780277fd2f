"""`zamba-lab page MODEL -o FILE`"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="a shipped model (zamba2-nano), a folder or a hub id")
    parser.add_argument("-o", "--output", type=Path, default=Path("page.html"), metavar="FILE", help="what is written (page.html)")
    parser.add_argument("--text", type=Path, metavar="FILE", help="that the page begins with; a few lines of Python if left out")
    parser.add_argument(
        "--reference", type=Path, metavar="FILE", help="a text over which the means of parts are taken; Python's library if left out"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32", help="of the weights; float16 halves the file (float32)"
    )


def main(arguments: argparse.Namespace) -> int:
    from zamba_lab.checkpoints import load
    from zamba_lab.pages.file import page

    text, reference = (None if file is None else file.read_text(encoding="utf-8") for file in (arguments.text, arguments.reference))
    file = page(load(arguments.source), arguments.output, text, reference, arguments.dtype, Path(arguments.source).name)
    print(f"{file}: {file.stat().st_size:,} bytes; open it in a browser")
    return 0
