"""Fills generated blocks of Markdown documents, and makes the blocks of docs/performance.md from result files.

A block stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``; the text outside blocks is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .markdown_tables import Document, singles, table, threads
from .rounds import Figure, Group, Spread

_BLOCK = re.compile(r"(<!-- begin (?P<name>[\w ]+) -->\n)(?P<body>.*?)(?P<end><!-- end (?P=name) -->)", re.DOTALL)
NOTHING = "Not measured yet.\n"


@dataclass(frozen=True)
class Claim:
    """A limit on the ratio of two variants, at every context or prompt length that was measured.

    Args:
        text: The claim as the table shows it.
        where: Benchmark and part.
        variant, against: Prefixes of the two variants' names. If several variants match, the one nearest to the limit
            counts.
        limit: The largest allowed ratio, or the smallest one if `least`.
        least: Whether larger ratios are better.
        only: The only context or length that counts; None for all.
    """

    text: str
    where: tuple[str, str]
    variant: str
    against: str
    limit: float
    least: bool = False
    only: int | None = None


CLAIMS = (
    Claim("decode, one skill / untouched", ("decode", "skill"), "one skill (native)", "untouched", 1.04),
    Claim("decode, base / untouched", ("decode", "skill"), "base, skill 0 fed (native)", "untouched", 1.02),
    Claim("decode, nothing fed / untouched", ("decode", "skill"), "base, nothing fed (native)", "untouched", 1.02),
    Claim("prefill of 256 / untouched", ("prefill", "skill"), "one skill (native)", "untouched", 1.04, only=256),
    Claim("eight skills / one skill, 8 rows", ("decode", "rows"), "8 skills (native)", "one skill (native)", 1.03),
    Claim("1,000 skills in the bank / 1", ("decode", "bank"), "one skill of 1,000", "one skill of 1", 1.01),
    Claim("ORT-GenAI with LoRA / ours", ("decode", "rivals"), "ORT-GenAI, LoRA", "one skill", 1.8, least=True),
    Claim("llama.cpp with LoRA / ours", ("decode", "rivals"), "llama.cpp, LoRA", "one skill", 1.5, least=True),
    Claim("PEFT LoRA / ours", ("decode", "rivals"), "PEFT, LoRA", "one skill", 5.0, least=True),
)


def fill(text: str, blocks: Mapping[str, str]) -> str:
    """Replace the blocks of a document; a block without a measurement says so.

    Raises:
        ValueError: The document lacks one of the blocks.
    """
    places = {match["name"] for match in _BLOCK.finditer(text)}
    if missing := sorted(set(blocks) - places):
        raise ValueError(f"no <!-- begin NAME --> for {', '.join(missing)}")
    return _BLOCK.sub(lambda match: f"{match[1]}\n{blocks.get(match['name'], NOTHING)}\n{match['end']}", text)


def held(text: str) -> dict[str, str]:
    """The current contents of a document's blocks, for a script that fills only some of them."""
    return {match["name"]: match["body"].strip("\n") + "\n" for match in _BLOCK.finditer(text)}


def blocks(documents: Sequence[Document]) -> dict[str, str]:
    """Every block that these files can fill, by name."""
    found = {"machines": "\n".join(f"- {_machine(document)}" for document in documents) + "\n"}
    for (benchmark, part), groups in grouped(documents).items():
        found[f"{benchmark} {part}"] = "\n".join(_tables(groups))
    if claims := list(_claims(documents)):
        found["acceptance"] = table(("claim", "limit", "threads", "measured", ""), claims)
    if notes := list(_notes(documents)):
        found["variants"] = table(("variant", "what it is"), notes)
    for document in documents:
        for name, block in singles(document):
            found[name] = f"{found[name]}\n{block}" if name in found else block
    return found


def grouped(documents: Iterable[Document]) -> dict[tuple[str, str], list[tuple[int, Group]]]:
    """(benchmark, part) -> (number of threads, group), sorted by threads and then by context or prompt length."""
    found: dict[tuple[str, str], list[tuple[int, Group]]] = {}
    for document in documents:
        for group in document.get("groups", ()):
            if "part" in group.what:
                entry = (int(document["settings"]["threads"]), group)
                found.setdefault((document["benchmark"], group.what["part"]), []).append(entry)
    return {key: sorted(entries, key=lambda entry: (entry[0], size(entry[1]))) for key, entries in found.items()}


def size(group: Group) -> int:
    """Number of tokens in the context or in the prompt."""
    return int(group.what.get("context", group.what.get("length", 0)))


def _tables(entries: Sequence[tuple[int, Group]]) -> Iterator[str]:
    """A table for every number of threads, with a row for every variant and variant it is compared with."""
    for count in sorted({entry[0] for entry in entries}):
        groups = [group for found, group in entries if found == count]
        header = ["variant", "against"]
        for group in groups:
            header += [f"{size(group):,}: ms", "ratio (quartiles)"]
        names = dict.fromkeys((f.name, other) for group in groups for f in group.figures for other in f.ratios or ("",))
        rows = [
            [name, other, *(cell for group in groups for cell in _cells(group, name, other))] for name, other in names
        ]
        rounds = ", ".join(f"{group.rounds}" for group in groups)
        yield f"{threads(count)}, {rounds} rounds\n\n{table(header, rows)}"


def _cells(group: Group, name: str, other: str) -> tuple[str, str]:
    figure = next((figure for figure in group.figures if figure.name == name), None)
    if figure is None:
        return "", ""
    ratio = figure.ratios.get(other)
    return f"{figure.ms.median:.2f}", "" if ratio is None else _spread(ratio)


def _spread(ratio: Spread) -> str:
    return f"{ratio.median:.3f} ({ratio.low:.3f}..{ratio.high:.3f})"


def _claims(documents: Sequence[Document]) -> Iterator[list[str]]:
    groups = grouped(documents)
    for claim in CLAIMS:
        entries = groups.get(claim.where, [])
        for count in sorted({entry[0] for entry in entries}):
            measured = {
                size(group): ratio
                for found, group in entries
                if found == count and claim.only in (None, size(group))
                for ratio in [_nearest(claim, group.figures)]
                if ratio is not None
            }
            if measured:
                met = all(r >= claim.limit if claim.least else r <= claim.limit for r in measured.values())
                values = ", ".join(f"{ratio:.3f} at {at:,}" for at, ratio in measured.items())
                limit = f"{'>=' if claim.least else '<='} {claim.limit}"
                yield [claim.text, limit, str(count), values, "met" if met else "**missed**"]


def _nearest(claim: Claim, figures: Iterable[Figure]) -> float | None:
    """The ratio nearest to the limit, or farthest beyond it."""
    ratios = [
        ratio.median
        for figure in figures
        if figure.name.startswith(claim.variant)
        for other, ratio in figure.ratios.items()
        if other.startswith(claim.against)
    ]
    return (min if claim.least else max)(ratios, default=None)


def _notes(documents: Sequence[Document]) -> Iterator[tuple[str, str]]:
    notes: dict[str, str] = {}
    for document in documents:
        notes |= document.get("notes", {})
    yield from ((name, note) for name, note in notes.items() if not name.endswith(", greedily"))


def _machine(document: Document) -> str:
    machine = document["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    load = f"load {machine['load_before']} before"
    if document.get("load_after") is not None:
        load += f", {document['load_after']} after"
    count = document.get("settings", {}).get("threads")
    what = document["benchmark"] + (f", {threads(count)}" if count else "")
    return f"{what}: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB; {packages}; {load}"
