"""Describes data files before training, for the author of a skill: as JSON values and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lime_edge.evaluation.examples import at_most, scan
from lime_edge.evaluation.profile import overlaps, profile

from .tables import Table

if TYPE_CHECKING:
    from lime_edge.evaluation.token_lengths import TokenCounter

_FAULTS = 20  # different faults that the table shows; the JSON document has all
_LABELS = 8  # labels that the table shows
_TEXT = 200  # most characters of a shared text in the table
_MUCH = 0.05  # share of dropped rows that deserves a warning


def describe_data(
    files: Sequence[Path], counter: TokenCounter | None = None, max_length: int = 512
) -> tuple[dict[str, Any], list[Table]]:
    """Describe data files.

    Args:
        files: The files.
        counter: Counts tokens; None counts characters.
        max_length: The longest row that training would keep, in tokens.

    Returns:
        The facts as plain JSON values, and one table for each file.

    Raises:
        DataError: A file cannot be read at all.
    """
    scans = [scan(file) for file in files]
    profiles = [profile(found, counter, max_length) for found in scans]
    shared = overlaps(scans)
    tables = [Table(str(facts["file"]), _rows(facts)) for facts in profiles]
    if shared:
        rows = [(" and ".join(one["files"]), f"{one['rows']} rows: {_some(one['examples'])}") for one in shared]
        tables.append(Table("equal prompts in two files, which learn keeps on one side", rows))
    return {"files": profiles, "overlap": shared}, tables


def _rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    forms = ", ".join(f"{form} ({count})" for form, count in facts["forms"].items())
    rows = [("format", f"{facts['format']}: {forms or 'no usable rows'}"), ("rows", str(facts["rows"]))]
    if facts["bad"]:
        rows.append(("cannot be used", f"{facts['bad']} rows"))
        rows += [("", fault) for fault in at_most(facts["faults"], _FAULTS)]
    if facts["pictures"]:
        rows.append(("pictures", _pictures(facts["pictures"])))
    if facts["unread"]:
        rows.append(("keys without a meaning here", _counts(facts["unread"])))
    return rows + (_content(facts) if facts["rows"] else [])


def _content(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    lengths = facts["lengths"]
    spread = "shortest {shortest}, median {median}, 95 % up to {p95}, longest {longest}".format(**lengths)
    rows = [(f"length in {lengths['unit']}", spread), ("left out by learn", _dropped(facts))]
    rows.append(("duplicates", f"{facts['duplicates']} rows repeat the prompt and the answer of another row"))
    if facts["conflicts"]:
        examples = _some(facts["conflict_examples"])
        rows.append(("conflicts", f"{facts['conflicts']} prompts have different answers: {examples}"))
    rows += _label_rows(facts)
    if facts["several_answers"]:
        rows.append(("conversations", f"{facts['several_answers']} have earlier answers; only the last is learned"))
    if facts["systems"]:
        rows.append(("system messages", f"{facts['systems']} different ones"))
    for end in ("beginning", "ending"):
        rows.append((f"every prompt's {end}", _shown(facts[end])))
    return rows


def _pictures(facts: Mapping[str, Any]) -> str:
    counts = [f"{facts[kind]} {kind}" for kind in ("images", "videos") if facts[kind]]
    said = [" and ".join(counts) + f", {facts['different']} different images"]
    for side in ("width", "height"):
        if side in facts:
            said.append(f"{side} " + "{least} to {most} pixels, median {median}".format(**facts[side]))
    return "; ".join(said)


def _dropped(facts: Mapping[str, Any]) -> str:
    if "dropped" not in facts:
        return "not known: give a model (-m) to count tokens"
    said = f"{facts['dropped']} rows have more than {facts['max_length']} tokens"
    if facts["dropped"] <= _MUCH * facts["rows"]:
        return said
    return f"{said}; --max-length {facts['lengths']['p95']} would keep 95 % of all"


def _label_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    labels, rows = facts["labels"], []
    if 0 < facts["with_choices"] < facts["rows"]:
        without = facts["rows"] - facts["with_choices"]
        rows.append(("choices", f"missing in {without} rows: accuracy is reported only if all rows have choices"))
    if labels:
        rows.append(("answers", _counts(labels, facts["rows"])))
        if not facts["with_choices"] and len(labels) > 1:
            rows.append(("choices", "none; with choices, answers are limited to them and accuracy is reported"))
        if unused := [label for label, count in labels.items() if not count]:
            rows.append(("choices never right", _some([repr(label) for label in unused])))
    return rows


def _counts(counts: Mapping[str, int], total: int = 0) -> str:
    def one(name: str, count: int) -> str:
        return f"{_shown(name)} {count}" + (f" ({100 * count / total:.0f} %)" if total else "")

    return ", ".join(at_most([one(name, count) for name, count in counts.items()], _LABELS))


def _some(examples: Sequence[str]) -> str:
    return "; ".join(examples)


def _shown(text: str) -> str:
    if not text:
        return "nothing"
    return repr(text) if len(text) <= _TEXT else f"{text[:_TEXT]!r} and {len(text) - _TEXT} more characters"
