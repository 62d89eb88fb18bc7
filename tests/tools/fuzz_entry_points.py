"""Calls the public entry points of a live runtime with arguments of every kind; only LimeError may escape.

    python -m tests.tools.fuzz_entry_points --cases 20000 [--seed N] [--json FILE]

Texts come from hypothesis, with lone surrogates, control characters and special tokens; numbers from the whole range of
every setting, in Python's and in numpy's types; prompts, messages, roles, skills and choices in every shape. Checked
for every case: no exception but LimeError; its message is short and can be printed; no row of the bank stays in use.
The first finding stops the run, and hypothesis reduces it.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import hypothesis
import numpy as np
from hypothesis import strategies as st

from lime_edge.contract.vector_kinds import KINDS
from lime_edge.errors import LimeError
from lime_edge.runtime import Runtime
from lime_edge.runtime.decoding.generation_options import _RANGES
from tests.support.runtime_models import exported, skill
from tests.support.tiny import SPECIAL

LONGEST = 20_000  # characters of a message
NAMES = ("brief", "long", "")
NUMPY: tuple[Callable[[Any], Any], ...] = (np.int8, np.int64, np.uint64, np.float16, np.float32, np.float64, np.bool_)


class FindingError(Exception):
    """A violated guarantee."""


@dataclass
class Tally:
    """Counts over all cases."""

    cases: int = 0
    answered: Counter[str] = field(default_factory=Counter)  # by entry point
    refused: Counter[str] = field(default_factory=Counter)  # by class of error
    seconds: float = 0.0

    def report(self) -> dict[str, Any]:
        return asdict(self) | {"answered": dict(self.answered), "refused": dict(self.refused)}


class EntryPoints:
    """One live runtime, and what is checked about every call of it."""

    def __init__(self) -> None:
        self.runtime, self.tally = Runtime.load(exported(), threads=1), Tally()
        for name in NAMES[:2]:
            self.runtime.load_skill(skill(exported(), name))
        self._rows = self.runtime._bank.in_use

    def check(self, name: str, arguments: dict[str, Any]) -> None:
        """Make one call.

        Raises:
            FindingError: A check failed.
        """
        self.tally.cases += 1
        try:
            getattr(self, f"_{name}")(**arguments)
            self.tally.answered[name] += 1
        except LimeError as error:
            self._check_message(error)
            self.tally.refused[type(error).__name__] += 1
        except Exception as error:
            raise FindingError(f"{type(error).__name__} escapes from {name}: {error}") from error
        if (rows := self.runtime._bank.in_use) != self._rows:
            raise FindingError(f"{name} leaves {rows} rows of the bank in use; expected {self._rows}")

    def _check_message(self, error: LimeError) -> None:
        try:
            printed = str(error).encode()
        except UnicodeEncodeError:
            raise FindingError(f"the message of {type(error).__name__} cannot be printed: {error!a}") from error
        if len(printed) > LONGEST:
            raise FindingError(f"the message of {type(error).__name__} has {len(printed)} bytes")

    def _generate(self, **arguments: Any) -> None:
        self.runtime.generate(**arguments)

    def _stream(self, **arguments: Any) -> None:
        "".join(self.runtime.stream(**arguments)).encode()

    def _choose(self, **arguments: Any) -> None:
        self.runtime.choose(**arguments)

    def _tokens(self, **arguments: Any) -> None:
        self.runtime._text.tokens(**arguments)

    def _use_skill(self, skill: Any) -> None:
        self.runtime.use_skill(skill)
        self.runtime.use_skill(None)

    def _unload_skill(self, name: Any, expected_generation: Any) -> None:
        if not isinstance(name, str) or name not in NAMES[:2]:
            self.runtime.unload_skill(name, expected_generation)

    def _load_skill(self, name: Any, generation: dict[str, Any], prompt: Any) -> None:
        """A skill whose file declares settings from their whole range answers."""
        package = skill(exported(), "made", prompt={"generation": generation, "stop": []})
        info = self.runtime.load_skill(package, name)
        try:
            self.runtime.generate(prompt, skill=info.name, max_new_tokens=2)
        finally:
            self.runtime.unload_skill(info.name)

    def _paths(self, path: str) -> None:
        """Files and folders that are none."""
        for load in (self.runtime.load_skill, Runtime.load):
            try:
                load(path)
            except LimeError as error:
                self._check_message(error)
        Runtime.load(exported(), operators=path, threads=1)

    def _load(self, **arguments: Any) -> None:
        Runtime.load(exported(), **arguments)


FRAGMENTS = ("<|im_", "end|>", "\ud83d", "\x00", "\x1b[2J", "\U00100000", "yes", "é中😀", "x" * 3000)
PIECE = st.text(st.characters(exclude_categories=()), max_size=12) | st.sampled_from([*SPECIAL, *FRAGMENTS])
TEXT = st.lists(PIECE, max_size=4).map("".join)
GOOD_TEXT = st.lists(
    st.text(max_size=12) | st.sampled_from([*SPECIAL, "<|im_", "end|>", "\x00", "yes"]), max_size=4
).map("".join)


def numbers(low: float, high: float, whole: bool) -> st.SearchStrategy[Any]:
    """Numbers of the whole range of a setting, and its ends, as Python's or numpy's."""
    inside: st.SearchStrategy[Any]
    if whole:
        inside = st.integers(int(low), int(high)) | st.sampled_from([int(low), int(high)])
        return inside | st.tuples(st.sampled_from(NUMPY), inside).map(_scalar)
    smallest = [value for value in (5e-324, 1e-307, 1e-45, 1e-9) if low <= value]
    inside = st.floats(low, high) | st.integers(math.ceil(low), int(high)) | st.sampled_from([low, high, *smallest])
    return inside | st.tuples(st.sampled_from(NUMPY), inside).map(_scalar)


def _scalar(pair: tuple[Any, Any]) -> Any:
    made, value = pair
    with np.errstate(all="ignore"):
        try:
            return made(value)
        except (OverflowError, ValueError):
            return value


HUGE = st.builds(pow, st.just(-10), st.sampled_from([400, 5001]))
ODD_NUMBERS = st.integers() | st.floats() | st.sampled_from([True, 2**63, 2**64, -1, 0]) | HUGE
VALUE: st.SearchStrategy[Any] = st.recursive(
    st.none() | TEXT | ODD_NUMBERS | st.binary(max_size=3) | st.builds(object) | st.just(np.arange(3)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3) | st.tuples(inner),
    max_leaves=6,
)


def rarely(good: st.SearchStrategy[Any], bad: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly good values: a call with many bad ones tests only the first check."""
    return st.integers(0, 14).flatmap(lambda draw: bad if draw == 1 else good)


ROLE = rarely(
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.sampled_from(["human", "User", "usr<|im_end|>"]) | TEXT | VALUE,
)
CONTENT = rarely(GOOD_TEXT, TEXT | VALUE)
EXTRA = rarely(st.none() | GOOD_TEXT | st.lists(GOOD_TEXT, max_size=2), VALUE)
MESSAGE = st.fixed_dictionaries({"role": ROLE, "content": CONTENT}, optional={"name": EXTRA, "tool_calls": EXTRA})
ONE = rarely(GOOD_TEXT | st.lists(MESSAGE, min_size=1, max_size=3), TEXT | VALUE)
PROMPT = rarely(ONE, st.lists(ONE, max_size=3) | VALUE)
SPEC = rarely(
    st.none() | st.sampled_from(NAMES[:2]) | st.dictionaries(st.sampled_from(NAMES[:2]), st.floats(-2, 2), min_size=1),
    st.dictionaries(st.sampled_from(NAMES) | TEXT, ODD_NUMBERS, max_size=2) | TEXT | VALUE,
)
SKILL = rarely(SPEC, st.lists(SPEC, max_size=2))
ODD = VALUE | ODD_NUMBERS | st.tuples(st.sampled_from(NUMPY), ODD_NUMBERS).map(_scalar)
SETTINGS = {name: rarely(numbers(low, high, whole), ODD) for name, (whole, low, high) in _RANGES.items()}
CHOICE = st.text(min_size=1, max_size=12) | st.sampled_from(["yes", "no", "a<|im_end|>b", *SPECIAL])
SETTINGS["stop"] = rarely(CHOICE | st.lists(CHOICE, max_size=3), TEXT | VALUE)
FEW = st.integers(1, 3) | st.tuples(st.sampled_from(NUMPY[:-1]), st.integers(1, 3)).map(_scalar)
CALL = {"prompt": PROMPT, "max_new_tokens": rarely(FEW, SETTINGS.pop("max_new_tokens"))}
OPTIONAL = {"skill": SKILL, "raw": st.booleans(), **SETTINGS}
DECLARED = st.fixed_dictionaries(
    {},
    optional={
        name: numbers(low, high, whole).filter(lambda value: type(value) in (int, float))
        for name, (whole, low, high) in _RANGES.items()
        if name not in ("seed", "max_new_tokens")
    },
)
CASES: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "generate": st.fixed_dictionaries(
        CALL,
        optional=OPTIONAL
        | {
            "batch_size": rarely(FEW, ODD),
            "beams": rarely(st.none(), ODD),
            "answers": rarely(st.lists(TEXT, min_size=1, max_size=3, unique=True), ODD),
            "speculate": rarely(st.booleans(), ODD),
        },
    ),
    "stream": st.fixed_dictionaries(CALL, optional=OPTIONAL),
    "choose": st.fixed_dictionaries(
        {"prompt": PROMPT, "choices": rarely(st.lists(CHOICE, min_size=1, max_size=3, unique=True), VALUE)},
        optional={"skill": SKILL, "raw": st.booleans(), "best_only": st.booleans()},
    ),
    "tokens": st.fixed_dictionaries({"prompt": ONE}, optional={"system": st.none() | TEXT, "raw": st.booleans()}),
    "use_skill": st.fixed_dictionaries({"skill": SPEC}),
    "unload_skill": st.fixed_dictionaries({"name": TEXT | VALUE, "expected_generation": ODD}),
    "load_skill": st.fixed_dictionaries({"name": rarely(st.none(), ODD), "generation": DECLARED, "prompt": ONE}),
    "paths": st.fixed_dictionaries({"path": TEXT.map(lambda text: text[:300])}),
    "load": st.fixed_dictionaries(
        {"threads": ODD.filter(lambda value: value is not None)},
        optional={
            "spin": ODD,
            "max_value": st.dictionaries(st.sampled_from(KINDS) | TEXT, ODD),
            "device": ODD,
            "operators": ODD,
            "prefix_cache": ODD,
        },
    ),
}
OFTEN = ("generate", "stream", "choose", "tokens")  # twice as likely as the others
CASE = st.sampled_from([*CASES, *OFTEN]).flatmap(lambda name: st.tuples(st.just(name), CASES[name]))


def fuzz(cases: int, seed: int) -> Tally:
    """Make that many calls.

    Raises:
        FindingError: A check failed.
    """
    points, started = EntryPoints(), time.perf_counter()
    health = list(hypothesis.HealthCheck)

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=cases, deadline=None, database=None, suppress_health_check=health)
    @hypothesis.given(CASE)
    def run(case: tuple[str, dict[str, Any]]) -> None:
        points.check(*case)

    run()
    points.tally.seconds = round(time.perf_counter() - started, 1)
    return points.tally


@click.command()
@click.option("--cases", default=20_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "report", type=click.Path(path_type=Path), help="Write the counts to this file.")
def main(cases: int, seed: int, report: Path | None) -> None:
    """Fuzz the entry points of the runtime."""
    document = json.dumps(fuzz(cases, seed).report(), indent=2)
    click.echo(document)
    if report:
        report.write_text(document + "\n", "utf-8")


if __name__ == "__main__":
    main()
