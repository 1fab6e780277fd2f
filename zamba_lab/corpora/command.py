"""`zamba-lab corpus FOLDER SOURCE...`"""

import argparse
import json
import os
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="where the corpus is made")
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="stdlib, installed (the packages that zamba_lab stands on), docstrings (theirs), a folder of texts, tinystories, fineweb-edu, "
        "zyda-2 or a hub id owner/name[:config]; of two copies the one of the earlier source stays",
    )
    parser.add_argument(
        "--tokenizer", default="2048", help="a tokenizer's file or folder, or the number of tokens of one to train on what is kept (2048)"
    )
    parser.add_argument("--documents", type=int, help="how many to stream from the hub; all if left out")
    parser.add_argument("--threshold", type=float, default=0.85, help="similarity from which a document is a duplicate (0.85)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes; one a core if left out")
    parser.add_argument("--json", action="store_true", help="the manifest, as data")


def main(arguments: argparse.Namespace) -> int:
    from zamba_lab import corpora
    from zamba_lab.tokenizer import Tokenizer

    tokenizer = int(arguments.tokenizer) if arguments.tokenizer.isdecimal() else Tokenizer.load(arguments.tokenizer)
    sources = [corpora.source(text, arguments.documents) for text in arguments.sources]
    if differs := corpora.differences(sources):
        print(f"zamba-lab: {differs}", file=sys.stderr)
    corpus = corpora.build(sources, arguments.folder, tokenizer, threshold=arguments.threshold, workers=arguments.workers)
    print(json.dumps(corpus.manifest, indent=1) if arguments.json else corpus)
    return 0
