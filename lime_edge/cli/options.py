"""Arguments, options and parameter types that several commands share."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from lime_edge.common.files import reason
from lime_edge.common.strict_json import show
from lime_edge.reports.tables import STDOUT

F = TypeVar("F", bound=Callable[..., Any])


class _Path(click.Path):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if not os.fspath(value):  # of an unset variable in a script; Path("") would be the current folder
            self.fail("an empty text is not a path", param, ctx)
        try:
            if stat.S_ISDIR(os.stat(path).st_mode):
                os.stat(os.path.join(path, "."))  # may it be entered?
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError) as error:  # too long, a loop of links, in a folder without permission
            self.fail(f"{show(str(value))} is not a usable path: {reason(error)}", param, ctx)
        return path


def path_type() -> _Path:
    """A path that may exist. What is there is not checked here: the library's own errors say what was expected."""
    return _Path(path_type=Path)


def model_argument(function: F) -> F:
    """DIR: an exported model directory."""
    return click.argument("directory", metavar="DIR", type=path_type())(function)


def place_to_write(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """Option callback: reject a file that cannot be written, before the work starts."""
    if value is not None and not _writable(value):
        raise click.BadParameter(f"{value} cannot be written; expected a file in an existing, writable folder")
    return value


def _writable(file: Path) -> bool:
    folder = os.path.isdir(file.parent) and os.access(file.parent, os.W_OK | os.X_OK)
    return folder and not os.path.isdir(file) and (os.access(file, os.W_OK) or not os.path.lexists(file))


def _json_target(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    # click takes the next word as the value: without this check, `--json FILE` could overwrite a model or skill.
    if value is not None and value != STDOUT and not value.endswith(".json"):
        raise click.BadParameter(f"{value!r} does not end in .json; put --json last to print to standard output")
    if value is not None and value != STDOUT:
        place_to_write(context, parameter, path_type().convert(value, parameter, context))
    return value


def json_option(function: F) -> F:
    """--json [FILE], passed on as `target`."""
    return click.option(
        "--json",
        "target",
        metavar="[FILE]",
        is_flag=False,
        flag_value=STDOUT,
        callback=_json_target,
        help="Also write the facts as JSON to FILE.json; without FILE, print JSON instead of tables.",
    )(function)


def runtime_options(function: F) -> F:
    """--device and --threads."""
    function = click.option(
        "--threads", type=int, help="Number of ONNX Runtime threads.  [default: one per physical core]"
    )(function)
    device = click.Choice(["auto", "cpu", "cuda"])
    return click.option("--device", type=device, default="auto", show_default=True, help="Where to run.")(function)


def trust_option(function: F) -> F:
    """--trust POLICY."""
    return click.option(
        "--trust", metavar="POLICY", type=path_type(), help="Accept only skills that this trust policy admits."
    )(function)


_SETTINGS = (
    ("--max-new-tokens", int, "Longest answer, in tokens."),
    ("--temperature", float, "0 always takes the most likely token; higher values vary more."),
    ("--top-k", int, "Sample from the K most likely tokens only; 0 is off."),
    ("--top-p", float, "Sample from the most likely tokens whose probabilities add up to this."),
    ("--repetition-penalty", float, "Values above 1 make tokens that have occurred less likely."),
    ("--seed", int, "The same seed gives the same answer."),
)


def generation_options(function: F) -> F:
    """Generation settings; a setting that is not given is the skill's own, or else greedy decoding."""
    function = click.option(
        "--no-speculate", "speculate", is_flag=True, flag_value=False, default=None, help="Draft no tokens."
    )(function)
    function = click.option(
        "--stop", multiple=True, metavar="TEXT", help="End the answer before TEXT; may be repeated."
    )(function)
    for name, kind, text in reversed(_SETTINGS):
        function = click.option(name, type=kind, help=text)(function)
    return function


def picture_options(function: F) -> F:
    """Add --image and --video, both repeatable, as `images` and `videos`."""
    for name, what in (("video", "A video"), ("image", "A picture")):
        option = click.option(
            f"--{name}",
            f"{name}s",
            multiple=True,
            type=path_type(),
            metavar="FILE",
            help=f"{what} shown before the prompt; may be repeated.",
        )
        function = option(function)
    return function


def with_pictures(text: str, images: Sequence[Path], videos: Sequence[Path]) -> Any:
    """The text, or a list of parts: pictures, then the text."""
    shown = [{"type": "image", "path": str(path)} for path in images]
    shown += [{"type": "video", "path": str(path)} for path in videos]
    return [*shown, {"type": "text", "text": text}] if shown else text


COUNT = click.IntRange(1)
RATE = click.FloatRange(0, min_open=True)


def name_list(given: str) -> tuple[str, ...]:
    """Split comma-separated names; empty ones are dropped."""
    return tuple(filter(None, (name.strip() for name in given.split(","))))
