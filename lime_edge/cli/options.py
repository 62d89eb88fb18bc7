"""Arguments and options that several commands share. Imports nothing heavy: `--help` answers at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from lime_edge.reports.tables import STDOUT

F = TypeVar("F", bound=Callable[..., Any])


def path_type() -> click.Path:
    """A path; whether it is there is for the library to say, with what was expected."""
    return click.Path(path_type=Path)


def model_argument(function: F) -> F:
    """DIR: an exported model directory."""
    return click.argument("directory", metavar="DIR", type=path_type())(function)


def place_to_write(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """A file that can be written, as far as can be told: said before the work, not after it."""
    if value is not None and (value.is_dir() or not os.access(value.parent, os.W_OK)):
        raise click.BadParameter(f"{value} cannot be written; expected a file in a folder that is there")
    return value


def _json_target(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    # An option with an optional value takes the next word for it: better refused than overwritten.
    if value is not None and value != STDOUT and not value.endswith(".json"):
        raise click.BadParameter(f"{value!r} does not end in .json; put --json last to print to standard output")
    if value is not None and value != STDOUT:
        place_to_write(context, parameter, Path(value))
    return value


def json_option(function: F) -> F:
    """--json [FILE]: handed over as `target`."""
    return click.option(
        "--json",
        "target",
        metavar="[FILE]",
        is_flag=False,
        flag_value=STDOUT,
        callback=_json_target,
        help="Also write the facts to FILE.json; without FILE, print JSON instead of tables.",
    )(function)


def runtime_options(function: F) -> F:
    """--threads and --device."""
    function = click.option("--threads", type=int, help="Threads of ONNX Runtime.  [default: one per physical core]")(
        function
    )
    device = click.Choice(["auto", "cpu", "cuda"])
    return click.option("--device", type=device, default="auto", show_default=True, help="Where to run.")(function)


def trust_option(function: F) -> F:
    """--trust POLICY."""
    return click.option(
        "--trust", metavar="POLICY", type=path_type(), help="Take only skills that this trust policy admits."
    )(function)


_SETTINGS = (
    ("--max-new-tokens", int, "Longest answer, in tokens."),
    ("--temperature", float, "0 always takes the likeliest token; higher is more varied."),
    ("--top-k", int, "Draw from the K likeliest tokens only; 0 is off."),
    ("--top-p", float, "Draw from the likeliest tokens that make up this probability."),
    ("--repetition-penalty", float, "Above 1, tokens that were there are less likely."),
    ("--seed", int, "The same seed gives the same answer."),
)


def generation_options(function: F) -> F:
    """Settings of an answer; what is not given is the skill's own, else greedy."""
    function = click.option(
        "--stop", multiple=True, metavar="TEXT", help="End the answer before TEXT; may be repeated."
    )(function)
    for name, kind, text in reversed(_SETTINGS):
        function = click.option(name, type=kind, help=text)(function)
    return function


COUNT = click.IntRange(1)
RATE = click.FloatRange(0, min_open=True)


def name_list(given: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in given.split(","))))
