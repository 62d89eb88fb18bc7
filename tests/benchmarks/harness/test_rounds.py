"""Paired rounds: medians and their bounds, ratios within rounds, random orders, pooled openings, the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import rounds
from benchmarks.harness.rounds import Figure, Group, Report, Spread, Variant, measure


def test_spread_of_few_values() -> None:
    spread = Spread.of([5, 1, 4, 2, 3])
    assert (spread.low, spread.median, spread.high) == (2, 3, 4)
    assert (spread.sure_low, spread.sure_high) == (1, 5)
    assert Spread.of([7]) == Spread(7, 7, 7, 7, 7)
    assert Spread.of([1, 3]).scaled(10) == Spread(20, 15, 25, 10, 30)
    with pytest.raises(ValueError, match="no values"):
        Spread.of([])


def test_the_median_is_within_its_bounds_as_often_as_promised() -> None:
    rng = np.random.default_rng(0)
    samples = [Spread.of(rng.exponential(size=200)) for _ in range(1000)]
    held = np.mean([one.sure_low <= np.log(2) <= one.sure_high for one in samples])
    assert 0.94 < held < 0.98
    wide = np.mean([one.sure_low <= np.log(2) * 1.3 <= one.sure_high for one in samples])
    assert wide < 0.5


def test_ratios_are_taken_within_rounds() -> None:
    times = {"a": np.array([1.0, 10, 100]), "b": np.array([10.0, 1, 100])}
    a, b = rounds.figures(times, {"b": ("a",)})
    assert a == Figure("a", Spread.of([1e3, 1e4, 1e5]))
    assert b.ratios["a"].median == 1  # of 10, 0.1 and 1
    assert (b.ratios["a"].low, b.ratios["a"].high) == (0.55, 5.5)


def test_every_variant_runs_once_a_round_in_changing_order() -> None:
    order: list[str] = []

    def variant(name: str, against: tuple[str, ...] = ()) -> Variant:
        def turn() -> float:
            order.append(name)
            return float(order.count(name))  # seconds: 1, 2, 3, ...

        return Variant(name, turn, against)

    group = measure("title", [variant("a"), variant("b", ("a",)), variant("c", ("a",))], 20, warm=5, context=7)
    rows = [order[at : at + 3] for at in range(0, len(order), 3)]
    assert len(rows) == 25
    assert all(sorted(row) == ["a", "b", "c"] for row in rows)
    assert len({tuple(row) for row in rows}) > 3
    assert group["a"].ms.median == 1e3 * np.median(np.arange(6, 26))  # the first five do not count
    assert group["b"].ratios["a"].median == 1
    assert (group.what, group.rounds) == ({"context": 7}, 20)


def test_a_group_of_strangers_or_twins_is_refused() -> None:
    one = Variant("a", lambda: 1.0, ("b",))
    with pytest.raises(ValueError, match="not among them"):
        measure("title", [one], 1)
    with pytest.raises(ValueError, match="'a', 'a'"):
        measure("title", [Variant("a", lambda: 1.0)] * 2, 1)


def test_a_report_comes_back_from_its_file(tmp_path: Path) -> None:
    report = Report("decode", {"threads": 1}, {"a": "what it is"})
    figure = Figure("a", Spread(1.23456789, 1, 2, 1, 2), {"b": Spread(0.5, 0.25, 0.75, 0.3, 0.6)})
    report.groups.append(Group("title", {"context": 32}, 9, [figure]))
    report.write(tmp_path / "new" / "file.json")
    document = rounds.read(tmp_path / "new" / "file.json")
    assert document["groups"] == [
        Group("title", {"context": 32}, 9, [Figure("a", Spread(1.2346, 1, 2, 1, 2), figure.ratios)])
    ]
    assert document["notes"] == report.notes
    assert {"cpu", "cores", "packages", "load_before"} <= document["machine"].keys()
    assert "load_after" in document
    report.write(None)  # no file asked for


def test_rounds_after_another_opening_are_pooled_with_those_before() -> None:
    def group(part: str, *ratios: float) -> Group:
        turns = {"a": iter([1.0] * len(ratios)), "b": iter(ratios)}
        variants = [Variant("a", lambda: next(turns["a"])), Variant("b", lambda: next(turns["b"]), ("a",))]
        return measure("title", variants, len(ratios), warm=0, part=part)

    report = Report("decode", {})
    for found in (group("skill", 1, 2), group("rivals", 9), group("skill", 3, 4, 5)):
        report.add(found)
    first, second = report.groups
    assert (first.what, first.rounds) == ({"part": "skill"}, 5)
    assert first["b"].ratios["a"] == Spread.of([1, 2, 3, 4, 5])
    assert second["b"].ratios["a"].median == 9
