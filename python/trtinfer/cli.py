"""The command line: `trtinfer classify` and `trtinfer info`.

A command is one function that adds its arguments to a parser and returns what runs it; its name and
the first line of its docstring are what the user sees.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from trtinfer import _core, info
from trtinfer.classifier import Answer, Classifier
from trtinfer.errors import TrtInferError

Run: TypeAlias = Callable[[argparse.Namespace], int]

OK, SOME_FAILED, CANNOT_START, INTERRUPTED = 0, 1, 2, 130
_STDIN = "-"
_PROGRESS_FROM = 20  # images


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: Without the program's name; None for those of this process.

    Returns:
        The exit status: 0, 1 when some images failed, 2 when nothing could be started.
    """
    parser = argparse.ArgumentParser("trtinfer", description="Low-latency inference.")
    parser.add_argument("--version", action="version", version=f"trtinfer {_core.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (classify, show_info):
        summary = (command.__doc__ or "").splitlines()[0]
        name = command.__name__.removeprefix("show_")
        child = commands.add_parser(name, help=summary, description=summary)
        child.set_defaults(run=command(child))
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except (TrtInferError, ValueError) as error:
        print(f"trtinfer: {error}", file=sys.stderr)
        return CANNOT_START
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # as when the reader is `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOME_FAILED


def classify(parser: argparse.ArgumentParser) -> Run:
    """Print the top K (probability, label) pairs of images."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a file, or - for stdin")
    parser.add_argument("--model", metavar="FILE", help="ONNX model (default: EfficientNet-Lite0)")
    parser.add_argument("--labels", metavar="FILE", help="one a line, or JSON")
    parser.add_argument("--recipe", metavar="NAME", help="how images are prepared: torchvision...")
    parser.add_argument("--top-k", type=int, default=5, metavar="K", help="(default: 5)")
    parser.add_argument("--backend", default="auto", choices=["auto", "tensorrt", "onnxruntime"])
    _add_format(parser)
    return _classify


def show_info(parser: argparse.ArgumentParser) -> Run:
    """Print what this machine has, and which backend is chosen."""
    _add_format(parser, default="table")
    return _show_info


def _add_format(parser: argparse.ArgumentParser, default: str = "json") -> None:
    parser.add_argument(
        "--format", choices=["json", "table"], default=default, help="(default: %(default)s)"
    )


def _classify(options: argparse.Namespace) -> int:
    names = list(dict.fromkeys(options.images))
    failed = False
    write = _write_json if options.format == "json" else _write_table
    with Classifier(
        options.model, options.labels, options.recipe, backend=options.backend
    ) as classifier:
        sources = (sys.stdin.buffer.read() if name == _STDIN else name for name in names)
        answers = _with_progress(classifier.stream(sources, options.top_k), len(names))

        def watched() -> Iterator[tuple[str, Answer | Exception]]:
            nonlocal failed
            for name, answer in zip(names, answers, strict=True):
                if isinstance(answer, Exception):
                    failed = True
                    print(f"trtinfer: {_printable(name)}: {answer}", file=sys.stderr)
                yield name, answer

        write(watched())
    return SOME_FAILED if failed else OK


def _with_progress(
    answers: Iterable[Answer | Exception], total: int
) -> Iterator[Answer | Exception]:
    """Counts on stderr while a person waits; answers on their terminal are progress enough."""
    shown = total >= _PROGRESS_FROM and sys.stderr.isatty() and not sys.stdout.isatty()
    for count, answer in enumerate(answers, 1):
        if shown:
            print(f"\r{count}/{total}", end="", file=sys.stderr, flush=True)
        yield answer
    if shown:
        print(file=sys.stderr)


def _write_json(answers: Iterable[tuple[str, Answer | Exception]]) -> None:
    """One object from name to pairs, an image a line, written as the answers come."""
    separator = "{"
    for name, answer in answers:
        value: Any = (
            {"error": str(answer)}
            if isinstance(answer, Exception)
            else [[round(probability, 6), label] for probability, label in answer]
        )
        print(f"{separator}\n  {json.dumps(name)}: {json.dumps(value)}", end="", flush=True)
        separator = ","
    print("\n}")


def _write_table(answers: Iterable[tuple[str, Answer | Exception]]) -> None:
    for name, answer in answers:
        print(_printable(name))
        if isinstance(answer, Exception):
            print("  (failed)", flush=True)
            continue
        for probability, label in answer:
            print(f"  {probability:.4f}  {_printable(label)}", flush=True)


def _printable(text: str) -> str:
    """File names may hold bytes that the terminal's encoding does not."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _show_info(options: argparse.Namespace) -> int:
    facts = info.collect()
    if options.format == "json":
        print(json.dumps(facts, indent=2))
    else:
        for line in _lines(facts):
            print(line)
    return OK


def _lines(facts: Any, indent: str = "") -> Iterator[str]:
    """A tree of values as indented `name: value` lines."""
    for name, value in facts.items():
        title = str(name).replace("_", " ")
        if isinstance(value, dict):
            yield f"{indent}{title}"
            yield from _lines(value, indent + "  ")
        elif isinstance(value, list):
            yield f"{indent}{title}" + ("" if value else ": none")
            for entry in value:
                yield indent + "  " + ", ".join(f"{k} {v}" for k, v in entry.items() if v)
        else:
            yield f"{indent}{title}: {'none' if value is None else value}"
