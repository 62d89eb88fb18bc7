"""Generation settings of one answer: their ranges, defaults and precedence (call > skill > default)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, Protocol, TypedDict

from lime_edge.common.strict_json import show
from lime_edge.errors import ConfigError
from lime_edge.runtime.constraints.answer_spec import AnswerSpec

DEFAULT_NEW_TOKENS = 256  # at most; fewer if the context ends earlier

# name -> (is a whole number, minimum, maximum). A skill's manifest has the same ranges.
_RANGES: dict[str, tuple[bool, float, float]] = {
    "max_new_tokens": (True, 1, 2**20),
    "temperature": (False, 0, 10),
    "top_k": (True, 0, 2**20),
    "top_p": (False, 1e-3, 1),
    "repetition_penalty": (False, 0.1, 10),
    "seed": (True, 0, 2**63),
}
_OF_CALLS: dict[str, tuple[bool, float, float]] = {
    **_RANGES,
    "frequency_penalty": (False, -2, 2),
    "presence_penalty": (False, -2, 2),
    "logprobs": (True, 0, 20),
    "timeout": (False, 0, 10**9),
    "priority": (True, -100, 100),
}
_MAX_STOPS = 16
_USER = 256


class Event(Protocol):
    """Anything that can be set, such as `threading.Event`."""

    def is_set(self) -> bool: ...


class Settings(TypedDict, total=False):
    """Settings of a call; the skill's value or the default replaces None and missing ones."""

    max_new_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    repetition_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    seed: int | None
    stop: str | Sequence[str] | None
    cancel: Event | None
    timeout: float | None  # seconds
    answers: AnswerSpec | Sequence[str] | Mapping[str, Any] | None
    speculate: bool | None
    logprobs: int | None
    tools: Sequence[Mapping[str, Any]] | None
    user: str | None
    priority: int | None


@dataclass(frozen=True)
class Options:
    """The final settings of one answer."""

    max_new_tokens: int | None = None  # None: DEFAULT_NEW_TOKENS, or fewer if the context ends earlier
    temperature: float = 0.0  # 0 is greedy
    top_k: int = 0  # 0 is off
    top_p: float = 1.0
    repetition_penalty: float = 1.0  # 1 is off; counts tokens of prompt and answer
    seed: int | None = None  # None: different every time
    stop: tuple[str, ...] = ()
    cancel: Event | None = None  # ends the answer when it is set
    timeout: float | None = None  # seconds from the call on; None: no limit
    answers: AnswerSpec | None = None  # what the answer must be; None: what the skill says
    speculate: bool = True  # draft tokens and verify several in one step
    frequency_penalty: float = 0.0  # subtracted from a logit for every time the token occurs in the answer
    presence_penalty: float = 0.0  # subtracted once if it occurs in the answer
    logprobs: int | None = None  # how many alternatives of each token are reported; None: not even its own
    tools: Sequence[Mapping[str, Any]] = ()  # functions that the chat template shows to the model
    user: str | None = None  # whom it is for: users share the model fairly
    priority: int = 0  # higher ones get a row first

    @property
    def penalises(self) -> bool:
        """Whether earlier tokens change how likely the next one is."""
        return self.repetition_penalty != 1 or self.frequency_penalty != 0 or self.presence_penalty != 0

    @classmethod
    def settle(cls, call: Mapping[str, Any], skill: Mapping[str, Any] | None = None) -> Options:
        """Merge the settings of a call with those of the skill; the call wins.

        Args:
            call: Settings by name; None means not given.
            skill: Validated settings from the manifest, including ``stop``.

        Raises:
            ConfigError: Names every setting that is unknown or out of range.
        """
        given = {name: value for name, value in call.items() if value is not None}
        if isinstance(given.get("stop"), str):
            given["stop"] = (given["stop"],)
        faults = _faults(given)
        try:
            given |= {"answers": AnswerSpec.of(given["answers"])} if "answers" in given else {}
        except ConfigError as error:
            faults += error.faults or [error.message]
        if faults:
            raise ConfigError("the generation settings are invalid", faults)
        given |= {name: _native(given[name], whole) for name, (whole, _, _) in _OF_CALLS.items() if name in given}
        merged = {**(skill or {}), **given}
        return cls(**{**merged, "stop": tuple(merged.get("stop", ()))})


def _faults(given: Mapping[str, Any]) -> list[str]:
    known = {f.name for f in fields(Options)}
    faults = [
        f"unknown setting {show(name)}; expected one of {', '.join(sorted(known))}" for name in set(given) - known
    ]
    for name, (whole, low, high) in _OF_CALLS.items():
        if name in given and not _within(given[name], whole, low, high):
            what = "a whole number" if whole else "a number"
            faults.append(f"{name} is {show(given[name])}; expected {what} from {low} to {high}")
    cancel = given.get("cancel")
    if cancel is not None and (isinstance(cancel, type) or not callable(getattr(cancel, "is_set", None))):
        faults.append(f"cancel is {show(cancel)}; expected an object with is_set(), such as threading.Event()")
    if not isinstance(speculate := given.get("speculate", True), bool):
        faults.append(f"speculate is {show(speculate)}; expected True or False")
    if not isinstance(user := given.get("user", ""), str) or len(user) > _USER:
        faults.append(f"user is {show(user)}; expected a text of at most {_USER} characters")
    tools = given.get("tools", ())
    if not isinstance(tools, list | tuple) or not all(isinstance(tool, Mapping) for tool in tools):
        faults.append(f"tools is {show(tools)}; expected a list of objects")
    stop = given.get("stop", ())
    if not isinstance(stop, Sequence) or len(stop) > _MAX_STOPS or not all(isinstance(s, str) and s for s in stop):
        faults.append(f"stop is {show(stop)}; expected up to {_MAX_STOPS} strings, none of them empty")
    return faults


def _within(value: Any, whole: bool, low: float, high: float) -> bool:
    kind: Any = Integral if whole else Real
    return isinstance(value, kind) and not isinstance(value, bool) and bool(low <= value <= high)


def _native(value: Any, whole: bool) -> float:
    """A number of Python, whatever library's number was given."""
    return int(value) if whole else float(value)
