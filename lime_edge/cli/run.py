"""The commands that run a model, `lime-edge run`, `chat`, `eval` and `demo`; they need the base install only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lime_edge.common.strict_json import show
from lime_edge.contract.names import AUTO_SKILL, SKILLS_FOLDER
from lime_edge.errors import ConfigError, UnknownSkillError
from lime_edge.reports.tables import STDOUT, report, say

from .answers import read_answers
from .options import (
    generation_options,
    json_option,
    model_argument,
    path_type,
    picture_options,
    runtime_options,
    trust_option,
    with_pictures,
)
from .streams import checked, read_input

if TYPE_CHECKING:
    from lime_edge.evaluation.instruction import Instruction
    from lime_edge.runtime import Runtime
    from lime_edge.skills.manifest import Manifest

_STDIN = "-"


def open_runtime(directory: Path, device: str, threads: int | None, trust: Path | None) -> Runtime:
    """Load the exported model in `directory`."""
    from lime_edge.runtime import Runtime

    return Runtime.load(directory, device, threads, trust=trust)


def load_named(runtime: Runtime, directory: Path, name_or_file: str | None) -> str | None:
    """Load the skill that `--skill` names, under the option's value: two files may hold skills of the same name.

    For ``auto``, all skills of the model directory are loaded, under their file names.

    Raises:
        UnknownSkillError: There is no such skill, or none to choose from.
    """
    from lime_edge.store.lookup import find_skill, skill_files

    if name_or_file == AUTO_SKILL:
        files = skill_files(directory)
        if not files:
            raise UnknownSkillError(f"there is no skill to choose from in {directory / SKILLS_FOLDER}: put some there")
        for path in files:
            runtime.load_skill(path, path.stem)
        return AUTO_SKILL
    return None if name_or_file is None else runtime.load_skill(find_skill(directory, name_or_file), name_or_file).name


@click.command()
@model_argument
@click.argument("prompt")
@click.option(
    "--skill",
    metavar="NAME|FILE",
    help="A skill in DIR/skills, a .lime file, an installed NAME[@VERSION], or auto: the one of DIR/skills that fits "
    "the request, or the base.  [default: the base]",
)
@click.option("--stream", is_flag=True, help="Print the answer while it is generated.")
@click.option("--timings", is_flag=True, help="Also print tokens and seconds to standard error.")
@generation_options
@click.option(
    "--answers",
    type=path_type(),
    metavar="FILE",
    help="JSON schema, or JSON list of choices, that the answer must follow.  [default: what the skill says]",
)
@click.option(
    "--receipt",
    type=path_type(),
    metavar="FILE",
    help="Write what answered, and how, to this file; see lime-edge receipt.",
)
@click.option("--raw", is_flag=True, help="Take PROMPT as it is, without chat template and interface of the skill.")
@picture_options
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
    answers: Path | None,
    receipt: Path | None,
    raw: bool,
    images: tuple[Path, ...],
    videos: tuple[Path, ...],
    **settings: Any,
) -> None:
    """Answer one prompt; with PROMPT -, read it from standard input.

    The prompt goes through the interface of the skill, so a request to a shipped skill is the bare text.
    """
    text = read_input() if prompt == _STDIN else checked(prompt, "PROMPT")
    settings["answers"] = None if answers is None else read_answers(answers)
    runtime = open_runtime(directory, device, threads, trust)
    name = load_named(runtime, directory, skill)
    asked = with_pictures(text, images, videos)
    pieces = runtime.stream(asked, name, raw=raw, stop=stop or None, **settings)
    if stream:
        for piece in pieces:
            say(piece)
        say("\n")
    else:
        say("".join(pieces) + "\n")
    found = pieces.generation
    if receipt is not None:
        _write_receipt(receipt, found.receipt)
    if timings:
        if chosen := found.receipt.get("route"):
            click.echo(chosen["why"], err=True)
        took = found.timings
        click.echo(
            f"{took.prompt_tokens} tokens read in {took.prefill_seconds:.2f} s, "
            f"{took.new_tokens} generated at {took.tokens_per_second:.0f} per second, "
            f"{took.accepted_tokens} of {took.drafted_tokens} drafted tokens accepted",
            err=True,
        )


def _write_receipt(path: Path, receipt: Mapping[str, Any]) -> None:
    try:
        path.write_text(json.dumps(receipt, indent=2, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        raise ConfigError(f"{show(str(path))} cannot be written: {error.strerror or error}") from error


@click.command()
@model_argument
@click.option("--skill", metavar="NAME|FILE", help="The skill to start with.  [default: the base]")
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
    """Chat with the model; /skill NAME, /skill none and /skill list choose the skill, /image FILE shows a picture.

    A skill that was learned from single requests is shown the newest line only. The base and other skills are shown the
    whole conversation, with the turns that such a skill answered.
    """
    from .chat import Chat

    talk = Chat(open_runtime(directory, device, threads, trust), directory, {**settings, "stop": stop or None})
    if skill is not None:
        talk.use(skill)
    talk.loop()


@click.command("eval")
@model_argument
@click.argument("data", type=path_type())
@click.option(
    "--skill", "skills", multiple=True, metavar="NAME|FILE", help="A skill to measure, or auto; may be repeated."
)
@click.option("--rows", type=click.IntRange(1), help="Measure on this many rows, drawn at random.  [default: all]")
@click.option(
    "--max-new-tokens", type=click.IntRange(1), default=96, show_default=True, help="Longest answer, in tokens."
)
@click.option("--skip-long", is_flag=True, help="Leave out rows that do not fit into the context, instead of stopping.")
@trust_option
@runtime_options
@json_option
def evaluate(
    directory: Path,
    data: Path,
    skills: tuple[str, ...],
    rows: int | None,
    max_new_tokens: int,
    skip_long: bool,
    trust: Path | None,
    device: str,
    threads: int | None,
    target: str | None,
) -> None:
    """Measure the base and skills on examples.

    DATA is a data file (JSONL, CSV and others, see docs/data.md), or a folder with test.jsonl. Rows with choices are
    answered with the most likely choice, other rows with greedy text. Skills are asked through their interface: where
    all rows share an instruction that a skill carries or adds, the skill is asked without it; the base gets all. All
    rows are checked before the first is answered. With --json FILE, results are kept in the file while the evaluation
    runs.
    """
    from lime_edge.evaluation import evaluate as evaluating
    from lime_edge.evaluation.instruction import Instruction
    from lime_edge.evaluation.token_lengths import TokenCounter, as_asked, too_long
    from lime_edge.reports.evaluation import Kept, summary
    from lime_edge.skills.package import read_skill

    every = evaluating.examples(data)
    shared, examples = Instruction.of(every), evaluating.sample(every, rows)
    runtime = open_runtime(directory, device, threads, trust)
    names = [load_named(runtime, directory, skill) for skill in dict.fromkeys(skills)]
    manifests = {info.name: read_skill(info.path).manifest for info in runtime.skills()}
    room = runtime.context_length - (runtime.contract.table.virtual_tokens if names else 0)
    counter = TokenCounter(directory)
    faults = too_long(counter, examples, [None], room, max_new_tokens)
    for manifest in manifests.values():
        asked = as_asked(examples, _not_given(manifest, shared), manifest.interface.request)
        faults |= too_long(counter, asked, [manifest.interface.system], room, max_new_tokens)
    examples = evaluating.answerable(examples, faults, skip_long)
    kept = Kept(None if target in (None, STDOUT) else Path(str(target)), runtime, data, examples, len(faults))
    results = []
    for name in (None, *names):
        cut = None if name is None else shared if name == AUTO_SKILL else _not_given(manifests[name], shared)
        results.append(evaluating.measure(runtime, examples, name, max_new_tokens, kept.partial, cut))
        kept.complete(results[-1])
    report(*summary(runtime, data, examples, results, len(faults)), target)


def _not_given(manifest: Manifest, shared: Instruction) -> Instruction:
    """What a skill is not given of the prompts of a data set: what its vectors carry, or its interface adds."""
    from lime_edge.evaluation.instruction import Instruction

    interface, state = manifest.interface, manifest.made and manifest.made["instruction"]
    if state == "carried":
        return shared
    return Instruction(interface.prefix, interface.suffix)


@click.command()
@click.option(
    "--dir", "directory", metavar="DIR", type=path_type(), help="Where to keep the model.  [default: the cache]"
)
@runtime_options
@json_option
def demo(directory: Path | None, device: str, threads: int | None, target: str | None) -> None:
    """Take a tour: a small model and four skills, each prompt answered without and with its skill.

    The first run fetches the model and exports it, which takes a few minutes and needs the extra `export`. Later runs
    take seconds.
    """
    from . import demo as tour

    report(*tour.show(directory, device, threads), target)
