"""The command line: `trtinfer classify`, `build`, `verify`, `bench`, `serve` and `info`.

A command is one function that adds its arguments to a parser and returns what runs it; its name and
the first line of its docstring are what the user sees.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from trtinfer import (
    _core,
    default_model,
    info,
    model_metadata,
    tensorrt_backend,
    tensorrt_library,
)
from trtinfer.backend import RingSizes
from trtinfer.bench_command import bench
from trtinfer.buckets import bucket_sizes
from trtinfer.build_options import BuildOptions, Dimensions
from trtinfer.build_target import parse_capability
from trtinfer.classifier import Answer, Classifier, own_recipe
from trtinfer.command_options import (
    BACKENDS,
    add_device,
    add_format,
    add_model,
    read_dimensions,
    whole_numbers,
)
from trtinfer.errors import BackendError, ModelError, TrtInferError
from trtinfer.model_description import ModelDescription, describe
from trtinfer.model_source import ModelSource
from trtinfer.plan_cache import PlanCache
from trtinfer.plans import Plan, PlanBuilder, build_plans, write_plans
from trtinfer.preprocess import Recipe
from trtinfer.server import arguments as serve_arguments
from trtinfer.session import Session
from trtinfer.tensorrt_options import TensorRtOptions
from trtinfer.verify import TOLERANCES, Report, compare, random_requests

Run: TypeAlias = Callable[[argparse.Namespace], int]
T = TypeVar("T")

OK, SOME_FAILED, CANNOT_START, INTERRUPTED = 0, 1, 2, 130
_STDIN = "-"
_PROGRESS_FROM = 20  # images


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: Without the program's name; None for those of this process.

    Returns:
        The exit status: 0, 1 when some images failed or a model was not verified, 2 when nothing
        could be started.
    """
    parser = argparse.ArgumentParser("trtinfer", description="Low-latency inference.")
    parser.add_argument("--version", action="version", version=f"trtinfer {_core.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (classify, build, verify, bench, serve, show_info):
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
    parser.add_argument("--backend", default="auto", choices=BACKENDS)
    add_device(parser)
    add_format(parser)
    return _classify


def build(parser: argparse.ArgumentParser) -> Run:
    """Build TensorRT's plans of a model ahead of time."""
    add_model(parser)
    parser.add_argument("--max-batch-size", type=int, metavar="N", help="(default: 64)")
    parser.add_argument("--buckets", metavar="1,8,64", help="batch sizes (default: 1, 2, 4, ...)")
    parser.add_argument(
        "--dynamic-batch", action="store_true", help="one plan for all batch sizes: less memory"
    )
    parser.add_argument("--recipe", metavar="NAME", help="gives the image size if it varies")
    parser.add_argument("--workspace", type=int, default=0, metavar="BYTES", help="scratch memory")
    parser.add_argument("--optimization-level", type=int, default=-1, metavar="N", help="0 to 5")
    parser.add_argument(
        "--compute-capability",
        action="append",
        default=[],
        metavar="X.Y",
        help="GPU to build for, as 8.9 (default: the one at hand); TensorRT for RTX only",
    )
    add_device(parser)
    parser.add_argument("--output", metavar="DIR", help="write plan files, and no cache")
    return _build


def verify(parser: argparse.ArgumentParser) -> Run:
    """Compare TensorRT's answers with those of the CPU: exit status 0 if they are close, else 1."""
    add_model(parser)
    parser.add_argument("--images", nargs="+", metavar="IMAGE", help="(default: random inputs)")
    parser.add_argument("--recipe", metavar="NAME", help="how images are prepared: torchvision...")
    parser.add_argument("--samples", type=int, default=64, metavar="N", help="(default: 64)")
    parser.add_argument("--max-batch-size", type=int, default=8, metavar="N", help="(default: 8)")
    parser.add_argument("--device", type=int, default=0, metavar="N", help="GPU (default: 0)")
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="largest difference in parts of an output's range (default: "
        + ", ".join(f"{name} {most:g}" for name, most in TOLERANCES.items())
        + ")",
    )
    add_format(parser, default="table")
    return _verify


def serve(parser: argparse.ArgumentParser) -> Run:
    """Serve models over HTTP and gRPC, as Triton's clients expect it."""
    serve_arguments.add_to(parser)
    return _serve


def show_info(parser: argparse.ArgumentParser) -> Run:
    """Print what this machine has, and which backend is chosen."""
    add_format(parser, default="table")
    return _show_info


def _classify(options: argparse.Namespace) -> int:
    names = list(dict.fromkeys(options.images))
    failed = False
    write = _write_json if options.format == "json" else _write_table
    with Classifier(
        options.model,
        options.labels,
        options.recipe,
        backend=options.backend,
        device=whole_numbers(options.device),
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


def _with_progress(items: Iterable[T], total: int) -> Iterator[T]:
    """Counts on stderr while a person waits; answers on their terminal are progress enough."""
    shown = total >= _PROGRESS_FROM and sys.stderr.isatty() and not sys.stdout.isatty()
    for count, item in enumerate(items, 1):
        if shown:
            print(f"\r{count}/{total}", end="", file=sys.stderr, flush=True)
        yield item
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


def _build(options: argparse.Namespace) -> int:
    library = tensorrt_library.find(options.tensorrt)
    source = ModelSource(options.model or default_model.path())
    cache = None if options.output else PlanCache()
    description = describe(source, cache)
    buckets = _buckets(options, description)
    builders = _builders(
        options,
        description,
        functools.partial(PlanBuilder, library, source, description.axis, plan_cache=cache),
    )
    if options.output and len(builders) > 1:
        raise ValueError(f"--output takes plans of one kind of GPU, not of {', '.join(builders)}")

    def show(plan: Plan) -> None:
        what = f"built in {plan.seconds:.1f} s" if plan.built else "already there"
        several = plan.smallest < plan.bucket
        batch = f"{plan.smallest} to {plan.bucket}" if several else plan.bucket
        print(f"batch {batch}: {len(plan.data) / 1e6:.1f} MB, {what}", flush=True)

    for gpu, builder in builders.items():
        plans = build_plans(builder, buckets, show)
        if options.output:
            name = f"{source.name}-{options.precision}{'-dynamic' * builder.is_dynamic}"
            write_plans(plans, Path(options.output), name)
        place = options.output or (cache and cache.folder) or "no cache"
        print(f"{builder.library_name}, GPU {gpu}, {options.precision}: {place}")
    return OK


def _builders(
    options: argparse.Namespace,
    description: ModelDescription,
    make: Callable[[BuildOptions], PlanBuilder],
) -> dict[str, PlanBuilder]:
    """One for each kind of GPU: those of one kind share their plans."""
    build = _build_options(options, description)
    builders: dict[str, PlanBuilder] = {}
    for device in whole_numbers(options.device):
        builder = make(replace(build, device=device))
        builders.setdefault(builder.target.gpu, builder)
    return builders


def _buckets(options: argparse.Namespace, description: ModelDescription) -> tuple[int, ...]:
    chosen = whole_numbers(options.buckets) if options.buckets else None
    largest = options.max_batch_size or max(chosen or [RingSizes().max_batch_size])
    return bucket_sizes(largest, chosen, description.axis)


def _build_options(options: argparse.Namespace, description: ModelDescription) -> BuildOptions:
    return BuildOptions(
        options.precision,
        _dimensions(options, description),
        dynamic_batch=options.dynamic_batch,
        tf32=options.tf32,
        workspace_bytes=options.workspace,
        optimization_level=options.optimization_level,
        compute_capabilities=tuple(map(parse_capability, options.compute_capability)),
    )


def _dimensions(options: argparse.Namespace, description: ModelDescription) -> Dimensions:
    dimensions: Dimensions = {}
    if options.recipe:
        shape = Recipe.named(options.recipe).fixed_output_shape
        if shape is None:
            raise ModelError(f"recipe {options.recipe} gives images of every size")
        dimensions = description.dimensions_of(shape)
    return read_dimensions(options.dimension, dimensions)


def _verify(options: argparse.Namespace) -> int:
    if options.samples < 1:
        raise ValueError(f"--samples is {options.samples}; give 1 or more")
    tolerance = TOLERANCES[options.precision] if options.tolerance is None else options.tolerance
    if tolerance < 0:
        raise ValueError(f"--tolerance is {tolerance}; give a number from 0")
    if reason := tensorrt_backend.unusable_reason(options.tensorrt):
        raise BackendError(f"there is no TensorRT to compare with the CPU: {reason}")
    model = options.model or str(default_model.path())
    dimensions = _dimensions(options, describe(ModelSource(model), PlanCache()))
    build = BuildOptions(options.precision, dimensions, tf32=options.tf32)
    tensorrt = TensorRtOptions(build, library=options.tensorrt, falls_back=False)
    open_session = functools.partial(
        Session, model, max_batch_size=options.max_batch_size, preprocess=_image_recipe(options)
    )
    with (
        open_session(backend="onnxruntime") as cpu,
        open_session(backend="tensorrt", device=options.device, tensorrt=tensorrt) as gpu,
    ):
        requests = options.images or random_requests(cpu.inputs, dimensions, options.samples)
        total = len(options.images or range(options.samples))
        report = compare(cpu, gpu, _with_progress(requests, total), tolerance)
    _write_report(report, options)
    return OK if report.passed else SOME_FAILED


def _image_recipe(options: argparse.Namespace) -> Recipe | None:
    if not options.images:
        return None
    if options.recipe or not options.model:
        return Recipe.named(options.recipe or default_model.RECIPE)
    return own_recipe(options.model, model_metadata.read(options.model))


def _write_report(report: Report, options: argparse.Namespace) -> None:
    if options.format == "json":
        facts = {"precision": options.precision, "tf32": options.tf32, **report.facts()}
        print(json.dumps(facts, indent=2))
    else:
        print(_printable(str(report)))


def _serve(options: argparse.Namespace) -> int:
    try:
        from trtinfer.server import command
    except ImportError as error:
        raise TrtInferError(f"{error}; run: pip install 'trtinfer[server]'") from error
    return command.run(options)


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
