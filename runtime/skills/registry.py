"""Keeps track of loaded skills, the active skill, and the bank rows that each request uses.

The lock is held for short changes of dictionaries and bank rows, never while a graph runs or a file is read. A request
takes a `Lease` when it starts and keeps its rows, whatever is loaded, replaced or unloaded later.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import numpy as np

from lime_edge.common.semver import precedence
from lime_edge.common.strict_json import show
from lime_edge.contract.module_table import ModuleTable
from lime_edge.contract.names import AUTO_SKILL
from lime_edge.contract.vector_kinds import STORED, Kind
from lime_edge.errors import ConfigError, SkillConflictError, SkillVersionError, UnknownSkillError
from lime_edge.runtime.types import ACTIVE, Active, SkillInfo, SkillSpec
from lime_edge.skills.draft_table import DraftTable
from lime_edge.skills.interface import Interface
from lime_edge.skills.route import Route as Centroids

from .bank import Array, Bank, Hold
from .skill_specs import Spec, as_number, frozen, parts_of, thawed

# Ids of registries whose active skill is disabled in this thread or task.
_DISABLED: ContextVar[frozenset[int]] = ContextVar("lime_edge_disabled", default=frozenset())


@dataclass(frozen=True, eq=False)
class AppliedSkill:
    """A skill, blend or the base as a request applies it: a bank row and how to use it."""

    row: int = 0
    experts: int = 1  # number of experts in the row
    activation: str = "always"
    interface: Interface = field(default_factory=Interface)  # of plain requests and answers
    defaults: Mapping[str, Any] = field(default_factory=dict)  # generation settings and stop strings
    parts: tuple[tuple[SkillInfo, float], ...] = ()  # skills and weights; empty for the base
    draft: DraftTable | None = None  # drafts of its answers
    route: Centroids | None = None  # what its requests look like; None for the base and blends
    blended: bool = False  # a blend, even if of one skill alone: its vectors are computed

    @property
    def content(self) -> tuple[object, ...]:
        """What its vectors are, in this runtime: never equal for different vectors, and never used again."""
        weights = tuple(weight for _, weight in self.parts) if self.blended else ()
        return weights, *(info.generation for info, _ in self.parts)

    @property
    def skill_id(self) -> int:
        """The graph's number for the skill: the row, negative if it holds several experts."""
        return -self.row if self.experts > 1 else self.row

    @property
    def generation(self) -> int:
        """The generation of a single skill (not of a blend or the base)."""
        return self.parts[0][0].generation

    def of_generation(self, number: int) -> AppliedSkill:
        """The same skill with this generation."""
        return replace(self, parts=((replace(self.parts[0][0], generation=number), 1.0),))


Parts = tuple[tuple[AppliedSkill, float], ...]  # skills and weights of a blend


@dataclass(frozen=True)
class LoadConditions:
    """What a skill being loaded may replace; by default nothing."""

    replaces: bool = False  # the skill of the same name
    expected: int | None = None  # generation that must be loaded; 0: none may be; None: any
    no_downgrade: bool = False  # refuse to replace a newer version


@dataclass(frozen=True, eq=False)
class Lease:
    """Rows pinned for one request, until it is released or garbage-collected; a context manager releases it.

    Attributes:
        array: The bank to feed, [N, P].
        applied: One per requested skill.
    """

    hold: Hold
    array: Array
    applied: tuple[AppliedSkill, ...]

    def release(self) -> None:
        """Release the rows when the request is over. May be called again."""
        self.hold.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


class _Default(NamedTuple):
    """The active skill, and the lease that keeps its row."""

    spec: Spec = None
    lease: Lease | None = None


class Registry:
    """Loaded skills by name.

    Args:
        bank: Holds their vectors.
        table: Layout of a bank row.
        limits: The largest |value| that a blend may reach, by kind of vector.

    Raises:
        ConfigError: A limit exceeds the range of the bank's type.
    """

    def __init__(self, bank: Bank, table: ModuleTable, limits: Mapping[Kind, float]) -> None:
        self._bank, self._limits = bank, limits
        _check_range(limits, float(np.finfo(bank.dtype).max), str(bank.dtype))
        self._neutral = table.pack({})  # [1, segment]
        self._slices = _slices(table)
        # Assigned on one line and never edited: an interrupt leaves the old state or the new one.
        self._skills: Mapping[str, AppliedSkill] = {}
        self._holds: Mapping[str, Hold] = {}  # each keeps the row of one skill
        self._generation = 0  # the latest one assigned
        self._active = _Default()
        # By skills and weights: the blend and the stamp of its row, which may have been freed and reused.
        self._blends: dict[Parts, tuple[AppliedSkill, int]] = {}
        self._lock = threading.RLock()

    def admit(self, name: str, version: str, conditions: LoadConditions) -> AppliedSkill | None:
        """Check whether a skill may be loaded now; returns the loaded skill that it would replace.

        Raises:
            SkillConflictError: The loaded generation is not the expected one.
            ConfigError: The name is already loaded.
            SkillVersionError: It is older than the loaded version.
        """
        with self._lock:
            before = self._skills.get(name)
            _check_generation(name, before, conditions.expected)
            if before is not None and not conditions.replaces:
                raise ConfigError(taken(name))
            if before is not None and conditions.no_downgrade:
                _check_version(name, before.parts[0][0].version, version)
            return before

    def add(self, name: str, applied: AppliedSkill, conditions: LoadConditions) -> SkillInfo:
        """Register a skill as a new generation and keep its row. An error changes nothing.

        The active skill or blend is updated with it: a lease sees either the old generation or the new one.

        Raises:
            SkillConflictError, SkillVersionError, ConfigError: As in `admit`, or the active blend cannot use the skill.
        """
        with self._lock:
            self.admit(name, applied.parts[0][0].version, conditions)
            made, hold = applied.of_generation(self._generation + 1), self._bank.hold()
            skills, holds = {**self._skills, name: made}, {**self._holds, name: hold}
            try:
                hold.keep([made.row])
                active = _Default(self._active.spec, self._lease([self._active.spec], skills))
            except BaseException:
                hold.release()
                raise
            before = self._holds.get(name), self._active.lease
            self._skills, self._holds, self._active, self._generation = skills, holds, active, made.generation
            _release(before)
            return made.parts[0][0]

    def remove(self, name: str, expected: int | None = None) -> None:
        """Unload a skill; requests in flight finish with it.

        Raises:
            UnknownSkillError: The skill is not loaded.
            SkillConflictError: The loaded generation is not the expected one.
            ConfigError: The skill is active.
        """
        with self._lock:
            _check_generation(name, _find(name, self._skills), expected)
            if name in dict(parts_of(self._active.spec)):
                raise ConfigError(f"skill {name!r} is active: call use_skill(None) or use another skill first")
            before = self._holds[name]
            skills, holds = dict(self._skills), dict(self._holds)
            del skills[name], holds[name]
            self._skills, self._holds = skills, holds
            before.release()

    def activate(self, spec: SkillSpec) -> None:
        """Make a skill the default of calls that name none."""
        wanted = frozen(spec)
        if isinstance(wanted, Active):
            return
        with self._lock:
            active, before = _Default(wanted, self._lease([wanted], self._skills)), self._active
            self._active = active
            _release([before.lease])

    @property
    def active(self) -> SkillSpec:
        """The active skill of this thread or task."""
        return None if self._is_disabled else thawed(self._active.spec)

    @property
    def _is_disabled(self) -> bool:
        return id(self) in _DISABLED.get()

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """In this context, calls of this thread or task that name no skill use the base."""
        token = _DISABLED.set(_DISABLED.get() | {id(self)})
        try:
            yield
        finally:
            _DISABLED.reset(token)

    @property
    def loaded(self) -> Mapping[str, AppliedSkill]:
        """The loaded skills by name; another object after every change, and never written to."""
        return self._skills

    def infos(self) -> list[SkillInfo]:
        """The loaded skills, in loading order."""
        with self._lock:
            return [applied.parts[0][0] for applied in self._skills.values()]

    def lease(self, specs: Sequence[SkillSpec | Active]) -> Lease:
        """Pin the requested skills; `ACTIVE` stands for the active one.

        Raises:
            UnknownSkillError: A skill is not loaded; the message names those that are.
            ConfigError: A blend is invalid.
        """
        active = None if self._is_disabled else ACTIVE
        wanted = [frozen(active if spec is ACTIVE else spec) for spec in specs]
        with self._lock:
            return self._lease(
                [self._active.spec if isinstance(spec, Active) else spec for spec in wanted], self._skills
            )

    def _lease(self, specs: Sequence[Spec], skills: Mapping[str, AppliedSkill]) -> Lease:
        hold = self._bank.hold()
        try:
            applied = tuple([self._resolve(spec, skills, hold) for spec in specs])
            return Lease(hold, self._bank.array, applied)
        except BaseException:
            hold.release()
            raise

    def _resolve(self, spec: Spec, skills: Mapping[str, AppliedSkill], hold: Hold) -> AppliedSkill:
        """The skill or blend that a spec means now; `hold` keeps its row. "auto" is the base where none is chosen."""
        if spec == AUTO_SKILL:
            spec = None
        parts = tuple((_find(name, skills), weight) for name, weight in parts_of(spec))
        if isinstance(spec, tuple):
            return self._blend(parts, hold)
        applied = parts[0][0] if parts else AppliedSkill()
        hold.keep([applied.row])
        return applied

    def _blend(self, parts: Parts, hold: Hold) -> AppliedSkill:
        """A derived row: neutral + sum of weight * (skill - neutral), so that missing vectors stay neutral."""
        if parts in self._blends:
            blend, stamp = self._blends[parts]
            if hold.keep_written(blend.row, stamp):
                return blend
        if len({applied.activation for applied, _ in parts}) > 1:
            found = ", ".join(f"{applied.parts[0][0].name}: {applied.activation}" for applied, _ in parts)
            raise ConfigError(f"skills of different activation cannot be blended ({found})")
        with np.errstate(over="ignore", invalid="ignore"):  # `_check` refuses what is not finite
            vectors = self._neutral + sum(
                np.float32(weight) * (self._segments(applied) - self._neutral) for applied, weight in parts
            )  # [E or 1, segment]
        self._check(vectors)
        loudest = max(parts, key=lambda part: part[1])[0]
        blend = AppliedSkill(
            hold.add(vectors.ravel()),
            len(vectors),
            loudest.activation,
            loudest.interface,
            loudest.defaults,
            tuple((applied.parts[0][0], weight) for applied, weight in parts),
            loudest.draft,
            blended=True,
        )
        running = {key: found for key, found in self._blends.items() if self._bank.stamp(found[0].row) == found[1]}
        self._blends = {**running, parts: (blend, self._bank.stamp(blend.row))}
        return blend

    def _segments(self, applied: AppliedSkill) -> Array:
        """The vectors in a skill's row, [E or 1, segment]."""
        segments: Array = self._bank.array[applied.row].reshape(-1, self._neutral.size)[: applied.experts]
        return segments

    def _check(self, vectors: Array) -> None:
        peaks = {
            kind: max(float(np.abs(vectors[:, at]).max()) for at in places) for kind, places in self._slices.items()
        }
        faults = [
            f"{kind} reaches {peak:g}; at most {self._limits[kind]:g} is allowed"
            for kind, peak in peaks.items()
            if not peak <= self._limits[kind]
        ]
        if faults:
            raise ConfigError("the blend exceeds the limits on skills: use smaller weights", faults)


def _find(name: str, skills: Mapping[str, AppliedSkill]) -> AppliedSkill:
    if not isinstance(name, str) or name not in skills:
        raise UnknownSkillError(unknown(name, list(skills)))
    return skills[name]


def _release(held: Iterable[Hold | Lease | None]) -> None:
    for one in held:
        if one is not None:
            one.release()


def check_limits(limits: Mapping[Any, Any]) -> None:
    """Raises ConfigError: a kind is unknown, or a limit is not a number above 0."""
    faults = [
        f"unknown kind {show(kind)}; expected one of {', '.join(STORED)}" for kind in limits if kind not in STORED
    ]
    faults += [
        f"max_value of {kind} is {show(value)}; expected a number above 0"
        for kind, value in limits.items()
        if not as_number(value) > 0
    ]
    if faults:
        raise ConfigError("the limits on skills cannot be used", faults)


def _check_range(limits: Mapping[Kind, float], most: float, dtype: str) -> None:
    faults = [
        f"max_value of {kind} is {limit:g}; this model stores skills in {dtype}: at most {most:g}"
        for kind, limit in limits.items()
        if limit > most
    ]
    if faults:
        raise ConfigError("the limits on skills cannot be used", faults)


def _check_generation(name: str, found: AppliedSkill | None, expected: int | None) -> None:
    if expected is None:
        return
    if isinstance(expected, bool) or not isinstance(expected, int) or expected < 0:
        raise ConfigError(
            f"expected_generation is {show(expected)}; expected a generation, 0 for none, or None for any"
        )
    if (0 if found is None else found.generation) != expected:
        state = "is not loaded" if found is None else f"is at generation {found.generation}"
        wanted = f"generation {show(expected)}" if expected else "none to be loaded"
        raise SkillConflictError(
            f"skill {name!r} {state}; expected {wanted}: it has changed since; check skills() and decide again"
        )


def _check_version(name: str, loaded: str, other: str) -> None:
    if precedence(other) < precedence(loaded):
        raise SkillVersionError(
            f"skill {name!r} is loaded in version {loaded}; {other} is older: pass allow_downgrade=True to allow it"
        )


def taken(name: str) -> str:
    return f"a skill named {name!r} is already loaded: pass replace=True, or load it under another name"


def unknown(name: str, loaded: Sequence[str]) -> str:
    listed = f"loaded skills: {', '.join(map(repr, loaded))}" if loaded else "no skill is loaded"
    return f"no skill named {show(name)}; {listed}. Call load_skill first (None is the base)"


def _slices(table: ModuleTable) -> dict[Kind, list[slice]]:
    """Positions of each kind's values in a segment."""
    found: dict[Kind, list[slice]] = {kind: [] for kind in STORED if kind in table.kinds}
    for module in table.modules:
        for kind in table.kinds_of(module.name):
            start = table.offsets[kind, module.name]
            found[kind].append(slice(start, start + module.shape(kind, 1)[1]))
    return found
