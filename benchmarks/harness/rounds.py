"""Paired, interleaved rounds: medians with their spread, a report with the machine's description, table and JSON.

A round runs one turn of every variant, in an order that changes from round to round. Ratios are taken within each
round, so that other load on the machine affects both sides alike.
"""

from __future__ import annotations

import gc
import json
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

Floats = npt.NDArray[np.float64]

_DIGITS = 5  # significant digits in JSON
_PACKAGES = ("lime-edge", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Variant:
    """One thing that is timed.

    Args:
        name: Name in the tables.
        turn: Runs this variant's part of a round and returns the seconds of one step.
        against: Variants of the same group that its times are divided by, round by round.
    """

    name: str
    turn: Callable[[], float]
    against: tuple[str, ...] = ()


@dataclass(frozen=True)
class Spread:
    """Median, quartiles (low, high) and the 95 % confidence interval of the median, from order statistics."""

    median: float
    low: float
    high: float
    sure_low: float
    sure_high: float

    @classmethod
    def of(cls, values: npt.ArrayLike) -> Spread:
        """Of one or more values.

        Raises:
            ValueError: There are no values.
        """
        ordered = np.sort(np.asarray(values, np.float64).ravel())
        count = len(ordered)
        if not count:
            raise ValueError("there are no values")
        low, median, high = np.percentile(ordered, [25, 50, 75])
        reach = 0.98 * math.sqrt(count)  # half of 1.96: ranks of the median are binomial, p = 1/2
        first = max(0, math.floor(count / 2 - reach) - 1)
        last = min(count - 1, math.ceil(count / 2 + reach))
        return cls(*(float(value) for value in (median, low, high, ordered[first], ordered[last])))

    def scaled(self, factor: float) -> Spread:
        """All values multiplied by a factor."""
        return Spread(*(factor * value for value in asdict(self).values()))


@dataclass(frozen=True)
class Figure:
    """Result of one variant: milliseconds of a step, and ratios to other variants by name."""

    name: str
    ms: Spread
    ratios: dict[str, Spread] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Variants that were run in the same rounds.

    Args:
        title: One line.
        what: What distinguishes this group from others: context, rows, ...
        rounds: Number of counted rounds.
        figures: One for each variant, in their order.
        times: Seconds of every round by variant; not in the JSON form.
    """

    title: str
    what: dict[str, Any]
    rounds: int
    figures: list[Figure]
    times: dict[str, Floats] = field(default_factory=dict, repr=False, compare=False)

    def __getitem__(self, name: str) -> Figure:
        return next(figure for figure in self.figures if figure.name == name)


def measure(
    title: str, variants: Sequence[Variant], rounds: int, *, warm: int = 3, seed: int = 0, **what: Any
) -> Group:
    """Run the variants in rounds.

    Args:
        title: Title of the group.
        variants: Variants with different names; every name in `against` is one of them.
        rounds: Number of counted rounds.
        warm: Number of uncounted rounds before them.
        seed: Seed of the orders.
        **what: See `Group.what`.

    Raises:
        ValueError: Two variants have the same name, or one is compared with an unknown variant.
    """
    names = [variant.name for variant in variants]
    unknown = {other for variant in variants for other in variant.against} - set(names)
    if len(set(names)) != len(names) or unknown:
        raise ValueError(f"variants {names}, compared with {sorted(unknown)} that are not among them")
    times: dict[str, list[float]] = {name: [] for name in names}
    rng = np.random.default_rng(seed)
    gc.collect()
    gc.disable()
    try:
        # A refresh thread would take processor time in the middle of a turn.
        with Progress(auto_refresh=False, transient=True) as progress:
            for _ in progress.track(range(warm + rounds), description=title):
                for at in rng.permutation(len(variants)):
                    times[names[at]].append(variants[at].turn())
                progress.refresh()
    finally:
        gc.enable()
    taken = {name: np.array(values[warm:]) for name, values in times.items()}
    return Group(title, what, rounds, figures(taken, {variant.name: variant.against for variant in variants}), taken)


def pooled(first: Group, second: Group) -> Group:
    """Combine the rounds of two groups of the same variants."""
    times = {name: np.concatenate([taken, second.times[name]]) for name, taken in first.times.items()}
    against = {figure.name: tuple(figure.ratios) for figure in first.figures}
    return Group(first.title, first.what, first.rounds + second.rounds, figures(times, against), times)


def figures(times: Mapping[str, Floats], against: Mapping[str, Sequence[str]]) -> list[Figure]:
    """Milliseconds and ratios from the seconds of every round, [rounds] by variant."""
    return [
        Figure(
            name,
            Spread.of(taken).scaled(1e3),
            {other: Spread.of(taken / times[other]) for other in against.get(name, ())},
        )
        for name, taken in times.items()
    ]


@dataclass
class Report:
    """All results of one run of a benchmark.

    Args:
        benchmark: Name of the benchmark.
        settings: Its settings.
        notes: Descriptions of the variants, by name or part of a name, and versions of packages.
    """

    benchmark: str
    settings: dict[str, Any]
    notes: dict[str, str] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=lambda: machine())

    def add(self, group: Group) -> None:
        """Keep a group, or pool it with an earlier group of the same title, and print its table."""
        known = [(before.title, before.what) for before in self.groups]
        if (group.title, group.what) in known:
            at = known.index((group.title, group.what))
            group = self.groups[at] = pooled(self.groups[at], group)
        else:
            self.groups.append(group)
        Console().print(table(group))

    def write(self, path: Path | None) -> None:
        """Write the JSON form, unless the path is None."""
        document = asdict(self) | {"load_after": load()}
        for group in document["groups"]:
            del group["times"]
        write(path, document)


def write(path: Path | None, document: Mapping[str, Any]) -> None:
    """Write a benchmark's results as JSON, unless the path is None."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_shortened(document), indent=1) + "\n", "utf-8")


def read(path: Path) -> dict[str, Any]:
    """Read what `Report.write` wrote; the entries of "groups" become `Group`s again."""
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    document["groups"] = [
        Group(
            group["title"],
            group["what"],
            group["rounds"],
            [
                Figure(
                    figure["name"],
                    Spread(**figure["ms"]),
                    {other: Spread(**ratio) for other, ratio in figure["ratios"].items()},
                )
                for figure in group["figures"]
            ],
        )
        for group in document.get("groups", ())
    ]
    return document


def table(group: Group) -> Table:
    """A terminal table: a row for every variant, or one for each variant that it is compared with."""
    headers = ("variant", "ms", "quartiles", "against", "ratio", "quartiles")
    made = Table(*headers, title=f"{group.title}; {group.rounds} rounds", title_justify="left")
    for figure in group.figures:
        cells = [figure.name, f"{figure.ms.median:.3f}", f"{figure.ms.low:.3f}..{figure.ms.high:.3f}"]
        for other, ratio in figure.ratios.items():
            made.add_row(*cells, other, f"{ratio.median:.3f}", f"{ratio.low:.3f}..{ratio.high:.3f}")
            cells = [""] * 3
        if not figure.ratios:
            made.add_row(*cells)
    return made


def machine() -> dict[str, Any]:
    """Processor, memory, system, package versions and load, without which a figure means nothing."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": _memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": versions(_PACKAGES),
        "load_before": load(),
    }


def versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of the installed packages; missing packages are left out."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def load() -> float | None:
    """Load average of the last minute; None where the system has none."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def _memory() -> float | None:
    """Physical memory in GB; None where the system does not tell."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)


def _shortened(value: Any) -> Any:
    """Round all floats in a nested value to `_DIGITS` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _shortened(item) for key, item in value.items()}
    return [_shortened(item) for item in value] if isinstance(value, list | tuple) else value
