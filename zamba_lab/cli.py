"""`zamba-lab`: arguments to the functions of the package, nothing else."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from zamba_lab.version import __version__


def parser() -> argparse.ArgumentParser:
    """The command line: every command, with a function `run` from its arguments to an exit status."""
    parser = argparse.ArgumentParser(prog="zamba-lab", description="The lab for hybrid SSM/attention language models.")
    parser.add_argument("--version", action="version", version=f"zamba-lab {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, add in (
        ("info", _add_info),
        ("doctor", _add_doctor),
        ("generate", _add_generate),
        ("corpus", _add_corpus),
        ("train", _add_train),
        ("eval", _add_eval),
        ("specimen", _add_specimen),
        ("atlas", _add_atlas),
        ("export", _add_export),
        ("page", _add_page),
        ("ablate", _add_ablate),
        ("bench", _add_bench),
        ("course", _add_course),
        ("lab", _add_lab),
    ):
        add(commands.add_parser(name, help=add.__doc__, description=add.__doc__))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it did what was asked. A broken rule, a missing library, or a file that cannot be read or written
    is a sentence and status 2."""
    parsed = parser().parse_args(arguments)
    try:
        status = parsed.run(parsed)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `| head` has read enough
        return 141
    except (ValueError, ModuleNotFoundError, OSError) as error:
        sentence = error.strerror if isinstance(error, OSError) and error.filename is None else None
        print(f"zamba-lab: {sentence or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _add_info(parser: argparse.ArgumentParser) -> None:
    """the shape of a model and what it costs, without building it"""
    parser.add_argument("source", help="a preset (zamba2-2.7b, ...), a folder or a hub id")
    parser.add_argument("--context", type=int, default=4096, help="tokens for FLOPs and cache (4096)")
    parser.add_argument("--json", action="store_true", help="as data")
    parser.set_defaults(run=_info)


def _info(arguments: argparse.Namespace) -> int:
    from zamba_lab.checkpoints import load_config
    from zamba_lab.config import cost

    config = load_config(arguments.source)
    facts = cost.facts(config, arguments.context)
    print(json.dumps({**facts, "config": vars(config)}, indent=1) if arguments.json else cost.table(facts))
    return 0


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    """what a checkpoint is, and everything that is wrong with it; status 1 if anything is"""
    parser.add_argument("source", metavar="PATH", help="a folder, a weight file, a shipped model or a hub id")
    parser.add_argument("--json", action="store_true", help="as data")
    parser.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    from zamba_lab.checkpoints import doctor

    report = doctor(arguments.source)
    print(json.dumps(report.as_dict(), indent=1) if arguments.json else report)
    return 0 if report.ok else 1


def _add_generate(parser: argparse.ArgumentParser) -> None:
    """continue a text"""
    parser.add_argument("source", help="a shipped model (zamba2-nano), a folder or a hub id")
    parser.add_argument("prompt", help="the text to continue; - reads standard input")
    parser.add_argument("-n", "--max-new-tokens", type=int, default=100)
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="0, the default, picks the likeliest token; 0.7 with --top-p 0.8 varies more"
    )
    parser.add_argument("--top-k", type=int, help="sample from so many of the likeliest tokens")
    parser.add_argument("--top-p", type=float, help="sample from the likeliest tokens that have this probability together")
    parser.add_argument("--min-p", type=float, help="sample from tokens with at least this share of the likeliest one's probability")
    parser.add_argument("--seed", type=int, help="the same seed writes the same text")
    parser.epilog = (
        """for example: zamba-lab generate zamba2-nano "if not isinstance(value," --temperature 0.5 --top-p 0.9 --seed 0 -n 36"""
    )
    parser.set_defaults(run=_generate)


def _generate(arguments: argparse.Namespace) -> int:
    import torch

    from zamba_lab.checkpoints import load
    from zamba_lab.generation import stream
    from zamba_lab.tokenizer.texts import decode

    model = load(arguments.source)
    if model.tokenizer is None:
        raise ValueError(
            "generating from text needs a tokenizer.json or tokenizer.model beside the weights: "
            f"{arguments.source} has none that can be read"
        )
    prompt = decode(sys.stdin.buffer.read()) if arguments.prompt == "-" else arguments.prompt
    eos = model.config.eos_token_id
    tokens = stream(
        model,
        torch.tensor([model.tokenizer.encode(prompt)]),
        arguments.max_new_tokens,
        arguments.temperature,
        arguments.top_k,
        arguments.top_p,
        arguments.min_p,
        stop=() if eos is None else (eos,),
        seed=arguments.seed,
    )
    for text in model.tokenizer.stream(int(token) for token in tokens):
        print(text, end="", flush=True)
    print()
    return 0


def _add_corpus(parser: argparse.ArgumentParser) -> None:
    """make a corpus of texts: filter, remove duplicates, tokenise; goes on where it was stopped"""
    from zamba_lab.corpora import command

    command.add_arguments(parser)
    parser.set_defaults(run=command.main)


def _add_train(parser: argparse.ArgumentParser) -> None:
    """train a model, or go on with a run that was stopped"""
    from zamba_lab.train.command import add_arguments

    add_arguments(parser)
    parser.set_defaults(run=_train)


def _train(arguments: argparse.Namespace) -> int:
    from zamba_lab.recipes import recipes
    from zamba_lab.train.command import main as train

    return train(arguments, recipes())


def _add_eval(parser: argparse.ArgumentParser) -> None:
    """how well a model predicts texts, in bits per byte, beside what xz takes; or what it scores on tasks of lm-eval"""
    from zamba_lab.evaluate.command import add_arguments

    add_arguments(parser)
    parser.set_defaults(run=_eval)


def _eval(arguments: argparse.Namespace) -> int:
    from zamba_lab.evaluate.command import main as evaluate

    return evaluate(arguments)


def _add_specimen(parser: argparse.ArgumentParser) -> None:
    """measure what a model's heads, parts and memories do, and how it writes: its specimen sheet; minutes"""
    parser.add_argument("source", help="a shipped model (zamba2-nano), a folder or a hub id")
    parser.add_argument(
        "folder", type=Path, nargs="?", help="where specimen.json and specimen.md go; the sheet is printed alone if left out"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs, not what it says")
    parser.set_defaults(run=_specimen)


def _specimen(arguments: argparse.Namespace) -> int:
    from zamba_lab import specimens
    from zamba_lab.checkpoints import load

    size, name = specimens.QUICK if arguments.quick else specimens.FULL, Path(arguments.source).name
    sheet = specimens.specimen(load(arguments.source), None, size, name, progress=sys.stderr.isatty())
    if arguments.folder:
        sheet.save(arguments.folder)
    print(sheet)
    return 0


def _add_atlas(parser: argparse.ArgumentParser) -> None:
    """measure a model and write its atlas, one page that needs no network; goes on where it was stopped"""
    from zamba_lab.atlases.command import add_arguments

    add_arguments(parser)


def _add_export(parser: argparse.ArgumentParser) -> None:
    """write a model, with its tokenizer, in the published layout, which transformers reads"""
    parser.add_argument("source", help="a shipped model (zamba2-nano), a folder, a file or a hub id")
    parser.add_argument("folder", type=Path, help="where it is written")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="of the weights; as stored if left out")
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> int:
    import torch

    from zamba_lab.checkpoints import load, save

    print(save(load(arguments.source, dtype=arguments.dtype and getattr(torch, arguments.dtype)), arguments.folder))
    return 0


def _add_page(parser: argparse.ArgumentParser) -> None:
    """write one HTML file that holds a model and runs it in any browser, without a network"""
    from zamba_lab.pages import command

    command.add_arguments(parser)
    parser.set_defaults(run=command.main)


def _add_ablate(parser: argparse.ArgumentParser) -> None:
    """plan, run or report an ablation study; a run goes on where it was stopped"""
    from zamba_lab.ablate.command import add_arguments

    add_arguments(parser)
    parser.set_defaults(run=_ablate)


def _ablate(arguments: argparse.Namespace) -> int:
    from zamba_lab.ablate.command import main as ablate
    from zamba_lab.report import write

    arguments.write = write
    return ablate(arguments)


def _add_bench(parser: argparse.ArgumentParser) -> None:
    """measure the project's claims of speed and memory"""
    parser.add_argument("names", nargs="*", help="files of benchmarks/ without .py; all if none is named")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether they run, not what they say")
    parser.add_argument("--json", action="store_true", help="as data")
    parser.add_argument(
        "--report",
        type=Path,
        help="also write the tables to this .md file and the data beside it as .json; what other benchmarks left there stays",
    )
    parser.set_defaults(run=_bench)


def _bench(arguments: argparse.Namespace) -> int:
    folder = Path(__file__).resolve().parent.parent / "benchmarks"
    if not folder.is_dir():
        raise ValueError("benchmarks are part of a checkout of the project, not of an installed package: there is no folder benchmarks/")
    sys.path.insert(0, str(folder))
    import harness  # the benchmarks' own, found on the path just set

    return harness.main(arguments.names, arguments.quick, arguments.json, arguments.report)


def _add_course(parser: argparse.ArgumentParser) -> None:
    """write the course's notebooks, or check a folder of submissions"""
    from zamba_lab.course.command import add_arguments

    add_arguments(parser)


def _add_lab(parser: argparse.ArgumentParser) -> None:
    """copy the notebooks to a folder of yours and open JupyterLab there"""
    parser.add_argument("folder", nargs="?", default="zamba-lab-notebooks", help="made if it is not there (zamba-lab-notebooks)")
    parser.add_argument("--copy-only", action="store_true", help="copy the notebooks and stop there")
    parser.add_argument("--no-browser", action="store_true", help="print JupyterLab's address instead of opening it")
    parser.set_defaults(run=_lab)


def _lab(arguments: argparse.Namespace) -> int:
    from zamba_lab.lab import copy_notebooks, open_jupyterlab

    copied, kept = copy_notebooks(arguments.folder)
    print(f"{len(copied)} files of notebooks are in {Path(arguments.folder).resolve()}")
    for file in kept:
        print(f"  kept as it is, for it was edited: {file.name} (delete it to have the new one)")
    return 0 if arguments.copy_only else open_jupyterlab(arguments.folder, not arguments.no_browser)
