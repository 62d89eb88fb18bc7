"""The command `lime-edge compare`: how far a skill is from the base, or from another version, on given requests."""

from __future__ import annotations

from pathlib import Path

import click

from lime_edge.common.formatting import share
from lime_edge.contract.names import AUTO_SKILL
from lime_edge.errors import ConfigError
from lime_edge.reports.tables import Table, report

from .options import json_option, model_argument, path_type, runtime_options, trust_option
from .run import load_named, open_runtime


@click.command()
@model_argument
@click.argument("data", type=path_type())
@click.option("--skill", required=True, metavar="NAME|FILE", help="The skill in question.")
@click.option("--against", metavar="NAME|FILE", help="What it is compared with.  [default: the base]")
@click.option("--rows", type=click.IntRange(1), default=50, show_default=True, help="Rows, drawn at random.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=96, show_default=True, help="Longest answer.")
@trust_option
@runtime_options
@json_option
def compare(
    directory: Path,
    data: Path,
    skill: str,
    against: str | None,
    rows: int,
    max_new_tokens: int,
    trust: Path | None,
    device: str,
    threads: int | None,
    target: str | None,
) -> None:
    """Answer the prompts of DATA with two skills, and compare them at every token of the first one's answers.

    The divergence is that of Kullback and Leibler, in nats: 0 where both give every token the same probability. The
    agreement is the share of tokens at which both have the same likeliest one. An instruction that all rows share is
    not given: both skills get the bare requests.
    """
    from lime_edge.evaluation import evaluate as evaluating
    from lime_edge.evaluation.instruction import Instruction, is_request

    if AUTO_SKILL in (skill, against):
        raise ConfigError("auto is no skill to compare: name one")
    examples = evaluating.examples(data)
    shared = Instruction.of(examples)
    runtime = open_runtime(directory, device, threads, trust)
    name = load_named(runtime, directory, skill)
    other = name if against == skill else load_named(runtime, directory, against)
    found = []
    for row in evaluating.sample(examples, rows):
        messages = shared.cut(row).messages
        prompt = messages[0]["content"] if is_request(row) else list(messages)
        found.append(runtime.compare(prompt, name, other, max_new_tokens=max_new_tokens, temperature=0.0))
    same = sum(one.against is not None and one.answer.text == one.against.text for one in found)
    document = {
        "skill": skill,
        "against": against,
        "rows": len(found),
        "divergence": sum(one.divergence for one in found) / len(found),
        "agreement": sum(one.agreement for one in found) / len(found),
        "same_text": same / len(found),
        "texts": [(one.answer.text, "" if one.against is None else one.against.text) for one in found],
    }
    facts = [
        ("rows", str(len(found))),
        ("divergence", f"{document['divergence']:.4f} nats a token"),
        ("agreement", share(float(str(document["agreement"])))),
        ("same text", share(same / len(found))),
    ]
    report(document, [Table(f"{skill} against {against or 'the base'}", facts)], target)
