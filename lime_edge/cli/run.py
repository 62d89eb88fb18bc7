"""`lime-edge run`, `chat`, `eval` and `demo`: what needs the base install only. Heavy imports inside."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lime_edge.reports.tables import report, say

from .options import generation_options, json_option, model_argument, path_type, runtime_options, trust_option

if TYPE_CHECKING:
    from lime_edge.runtime import Runtime

_STDIN = "-"


def open_runtime(directory: Path, device: str, threads: int | None, trust: Path | None) -> Runtime:
    """The exported model in `directory`."""
    from lime_edge.runtime import Runtime

    return Runtime.load(directory, device, threads, trust=trust)


def load_named(runtime: Runtime, directory: Path, name_or_file: str | None) -> str | None:
    """Load the skill that an option names, under the words of the option; two files may hold skills of one name."""
    from lime_edge.store.lookup import find_skill

    return None if name_or_file is None else runtime.load_skill(find_skill(directory, name_or_file), name_or_file).name


@click.command()
@model_argument
@click.argument("prompt")
@click.option(
    "--skill",
    metavar="NAME|FILE",
    help="A skill in DIR/skills, a .lime file, or an installed NAME[@VERSION].  [default: the base]",
)
@click.option("--stream", is_flag=True, help="Print the answer while it is made.")
@click.option("--timings", is_flag=True, help="Then print tokens and seconds to standard error.")
@generation_options
@trust_option
@runtime_options
def run(
    directory: Path,
    prompt: str,
    skill: str | None,
    stream: bool,
    timings: bool,
    trust: Path | None,
    device: str,
    threads: int | None,
    stop: tuple[str, ...],
    **settings: Any,
) -> None:
    """Answer one prompt; PROMPT - reads standard input."""
    runtime = open_runtime(directory, device, threads, trust)
    name = load_named(runtime, directory, skill)
    text = sys.stdin.read() if prompt == _STDIN else prompt
    pieces = runtime.stream(text, name, stop=stop or None, **settings)
    if stream:
        for piece in pieces:
            say(piece)
        say("\n")
    else:
        say("".join(pieces) + "\n")
    if timings:
        took = pieces.generation.timings
        click.echo(
            f"{took.prompt_tokens} tokens read in {took.prefill_seconds:.2f} s, "
            f"{took.new_tokens} written at {took.tokens_per_second:.0f} a second",
            err=True,
        )


@click.command()
@model_argument
@click.option("--skill", metavar="NAME|FILE", help="The skill to begin with.  [default: the base]")
@generation_options
@trust_option
@runtime_options
def chat(
    directory: Path,
    skill: str | None,
    trust: Path | None,
    device: str,
    threads: int | None,
    stop: tuple[str, ...],
    **settings: Any,
) -> None:
    """Talk to the model; /skill NAME, /skill none and /skill list switch in between."""
    from .chat import Chat

    talk = Chat(open_runtime(directory, device, threads, trust), directory, {**settings, "stop": stop or None})
    if skill is not None:
        talk.use(skill)
    talk.loop()


@click.command("eval")
@model_argument
@click.argument("data", type=path_type())
@click.option("--skill", "skills", multiple=True, metavar="NAME|FILE", help="A skill to measure; may be repeated.")
@click.option("--rows", type=click.IntRange(1), help="Measure on this many rows, drawn evenly.  [default: all]")
@click.option(
    "--max-new-tokens", type=click.IntRange(1), default=96, show_default=True, help="Longest answer, in tokens."
)
@trust_option
@runtime_options
@json_option
def evaluate(
    directory: Path,
    data: Path,
    skills: tuple[str, ...],
    rows: int | None,
    max_new_tokens: int,
    trust: Path | None,
    device: str,
    threads: int | None,
    target: str | None,
) -> None:
    """Measure the base, and skills against it, on examples.

    DATA is a JSONL file, or a folder with test.jsonl. Rows with choices are answered with the likeliest choice, others
    in greedy text.
    """
    from lime_edge.evaluation import evaluate as evaluating
    from lime_edge.reports.evaluation import summary

    examples = evaluating.examples(data, rows)
    runtime = open_runtime(directory, device, threads, trust)
    names = [load_named(runtime, directory, skill) for skill in dict.fromkeys(skills)]
    results = [evaluating.measure(runtime, examples, name, max_new_tokens) for name in (None, *names)]
    report(*summary(runtime, data, examples, results), target)


@click.command()
@click.option(
    "--dir", "directory", metavar="DIR", type=path_type(), help="Where to keep the model.  [default: the cache]"
)
@runtime_options
@json_option
def demo(directory: Path | None, device: str, threads: int | None, target: str | None) -> None:
    """The tour: a small model with four skills, each answering as the base and as the skill.

    The first time fetches the model and exports it, which takes a few minutes and the extra `export`; later times take
    seconds.
    """
    from . import demo as tour

    report(*tour.show(directory, device, threads), target)
