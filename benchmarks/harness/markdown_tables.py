"""Markdown tables, in general and for the benchmarks without paired rounds: roofline, size, switch and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

Document = Mapping[str, Any]  # one JSON file of results


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def threads(count: int) -> str:
    """The number of threads in words."""
    return "1 thread" if count == 1 else f"{count} threads"


def singles(document: Document) -> Iterator[tuple[str, str]]:
    """Name and text of each block that one file without paired rounds fills; nothing for other files."""
    write = _WRITERS.get(document["benchmark"])
    if write is not None:
        yield from write(document)


def _roofline(document: Document) -> Iterator[tuple[str, str]]:
    limits = document["limits"]
    rates = ", ".join(f"{rate:.1f} GB/s from {megabytes} MB" for megabytes, rate in limits["read"].items())
    best = f"{limits['bytes']:.0f} Gop/s on bytes and {limits['floats']:.0f} on floats"
    header = ("rows", "context", "variant", "MB", "of them the skill's", "Mop", "bound, ms", "taken, ms", "share")
    count = threads(document["settings"]["threads"])
    yield "roofline", f"{count}: reads {rates}; {best}\n\n{table(header, map(_bound, document['lines']))}"


def _bound(line: Mapping[str, Any]) -> list[str]:
    own = sum(line["bytes"].get(what, 0) for what in ("shared adapter", "skill's rows"))
    moved, work = sum(line["bytes"].values()), line["byte_operations"] + line["float_operations"]
    numbers = [f"{moved / 1e6:.1f}", f"{own / 1e6:.2f}", f"{work / 1e6:.0f}"]
    times = [f"{1e3 * line['bound']:.2f}", f"{1e3 * line['taken']:.2f}", f"{100 * line['share']:.0f} %"]
    return [str(line["rows"]), f"{line['context']:,}", line["variant"], *numbers, *times]


def _size(document: Document) -> Iterator[tuple[str, str]]:
    if "adapters" in document:
        header = ("file", "numbers", "stored as", "KB", "KB if float16")
        yield "size adapters", table(header, map(_file, document["adapters"]))
    if "install" in document:
        found = document["install"]
        sizes = {found["wheel"]: found["wheel_bytes"], "site-packages, without pip": found["bytes"]}
        rows = [[name, f"{size / 1e6:.2f}"] for name, size in (sizes | found["packages"]).items()]
        yield "size install", table(("what", "MB"), rows)


def _file(row: Mapping[str, Any]) -> list[str]:
    sizes = [f"{row[key] / 1e3:,.0f}" for key in ("bytes", "float16_bytes")]
    return [row["name"], f"{row['values']:,}", row["dtype"], *sizes]


def _switch(document: Document) -> Iterator[tuple[str, str]]:
    shown = ("p50", "p90", "p99", "highest")
    rows = [
        [one["engine"], one["call"], f"{one['loaded']:,}", *(_time(one[key]) for key in shown)]
        for one in document["figures"]
    ]
    yield "switch", table(("engine", "call", "loaded", *shown), rows)


def _time(microseconds: float) -> str:
    return f"{microseconds:.1f} us" if microseconds < 1000 else f"{microseconds / 1000:.2f} ms"


def _memory(document: Document) -> Iterator[tuple[str, str]]:
    rows = [
        [
            f"{row['skills']:,}",
            f"{row['all'] / 1e6:.1f}",
            f"{row['private'] / 1e6:.1f}",
            f"{row['each'] / 1e3:.0f} KB, {row['ratio']:.2f} of its bytes in the bank" if row["each"] else "",
        ]
        for row in document["memory"]["loaded"]
    ]
    yield "memory", table(("skills", "MB in memory", "of it private", "for each skill"), rows)
    header = ("until", "cold, ms", "quartiles", "warm, ms", "quartiles")
    until = document["starts"]["until"]
    rows = [[stage, *_spreads(one["cold"]), *_spreads(one["warm"])] for stage, one in until.items()]
    yield "starts", table(header, rows)


def _spreads(one: Mapping[str, float]) -> tuple[str, str]:
    return f"{one['median']:.0f}", f"{one['low']:.0f}..{one['high']:.0f}"


_WRITERS: dict[str, Callable[[Document], Iterator[tuple[str, str]]]] = {
    "roofline": _roofline,
    "size": _size,
    "switch": _switch,
    "memory": _memory,
}
