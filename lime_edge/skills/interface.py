"""The interface of a skill: how a bare request becomes a prompt, and what form its answers have.

Normative page: docs/skill-format.md. Only the structure is checked here; whether a JSON schema or a regular expression
means something is decided by what uses it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lime_edge.common.strict_json import Check, load_json, number, one_of, record, sequence, show, text

AnswerKind = Literal["choices", "schema", "regex", "text"]
Modality = Literal["text", "image", "video"]

CHOICE_LIMIT = 1000  # choices, and characters of one choice
SCHEMA_LIMIT = 2**16  # characters of a schema
SCHEMA_DEPTH = 32  # objects and lists inside each other
WHOLE_LIMIT = 2**53  # largest |number| in a schema that every JSON reader reads alike
REGEX_LIMIT = 4096  # characters
SYSTEM_LIMIT = 100_000  # characters
AFFIX_LIMIT = 20_000  # characters of the prefix, and of the suffix
EXAMPLE_LIMIT = 3
EXAMPLE_LENGTH = 2000  # characters


@dataclass(frozen=True)
class AnswerForm:
    """What every answer of a skill looks like.

    Attributes:
        kind: Which of the four forms.
        value: The list of choices, a JSON schema as text (the order of its properties matters), or a regular
            expression; None for free text.
    """

    kind: AnswerKind = "text"
    value: Any = None


@dataclass(frozen=True, kw_only=True)
class Interface:
    """How a plain request becomes a prompt, and what comes back.

    All texts are data: they are encoded without special tokens.

    Attributes:
        system: The system message, or None for that of the model.
        prefix: Text before the request in the user's message.
        suffix: Text after it.
        answers: The form of the answers.
        modality: What a request consists of.
        examples: Short requests that the skill was made for.
    """

    system: str | None = None
    prefix: str = ""
    suffix: str = ""
    answers: AnswerForm = AnswerForm()
    modality: tuple[Modality, ...] = ("text",)
    examples: tuple[str, ...] = ()

    def request(self, text: str) -> str:
        """The user's message for a plain request."""
        return f"{self.prefix}{text}{self.suffix}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON object in the manifest."""
        return {
            "input": {"system": self.system, "prefix": self.prefix, "suffix": self.suffix},
            "answers": {"kind": self.answers.kind, "value": self.answers.value},
            "modality": list(self.modality),
            "examples": list(self.examples),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Interface:
        """Build an interface from an object that passed `INTERFACE`."""
        modality, examples = tuple(document["modality"]), tuple(document["examples"])
        return cls(**document["input"], answers=AnswerForm(**document["answers"]), modality=modality, examples=examples)


def nullable(inner: Check) -> Check:
    """A check that also accepts null."""
    return lambda where, value: iter(()) if value is None else inner(where, value)


def _distinct(inner: Check) -> Check:
    """A check of a list of texts that must not repeat."""

    def check(where: str, value: Any) -> Iterator[str]:
        faults = list(inner(where, value))
        yield from faults
        if not faults and len(set(value)) < len(value):
            yield f"{where} contains {show(Counter(value).most_common(1)[0][0])} twice; expected distinct texts"

    return check


def _schema(where: str, value: Any) -> Iterator[str]:
    """Text of a JSON object of bounded depth; names the first fault only."""
    faults = list(_SCHEMA_TEXT(where, value))
    if faults:
        yield from faults
        return
    try:
        document = load_json(value)
    except ValueError as error:
        yield f"{where} is not strict JSON: {error}"
        return
    if not isinstance(document, dict):
        yield f"{where} is {show(document)}; expected a JSON schema, an object"
    elif fault := next(_json_faults(document, 1), ""):
        yield f"{where} {fault}"


def _json_faults(value: Any, depth: int) -> Iterator[str]:
    if isinstance(value, dict | list):
        if depth > SCHEMA_DEPTH:
            yield f"has objects and lists more than {SCHEMA_DEPTH} deep"
            return
        for inner in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _json_faults(inner, depth + 1)
    elif isinstance(value, str):
        yield from text(SCHEMA_LIMIT, controls="all")("has a text that", value)
    elif value is not None and not isinstance(value, bool):
        yield from number(-WHOLE_LIMIT, WHOLE_LIMIT)("has a number that", value)


def _answers(where: str, value: Any) -> Iterator[str]:
    yield from _ANSWERS(where, value)
    if isinstance(value, dict) and isinstance(kind := value.get("kind"), str) and kind in _VALUES and "value" in value:
        yield from _VALUES[kind](f"{where}.value", value["value"])


def _nothing(where: str, value: Any) -> Iterator[str]:
    if value is not None:
        yield f"{where} is {show(value)}; expected null, because the kind is text"


SYSTEM = nullable(text(SYSTEM_LIMIT, controls="all"))
_AFFIX = text(AFFIX_LIMIT, controls="all")
_SCHEMA_TEXT = text(SCHEMA_LIMIT, least=2, controls="all", what="a JSON schema as text")
_CHOICE = text(CHOICE_LIMIT, least=1, controls="all")
_VALUES: dict[str, Check] = {
    "choices": _distinct(sequence(_CHOICE, CHOICE_LIMIT, least=1)),
    "schema": _schema,
    "regex": text(REGEX_LIMIT, least=1, controls="all"),
    "text": _nothing,
}
_ANSWERS = record({"kind": one_of(*get_args(AnswerKind)), "value": lambda where, value: iter(())})
#: The check of `interface` in a manifest.
INTERFACE = record(
    {
        "input": record({"system": SYSTEM, "prefix": _AFFIX, "suffix": _AFFIX}),
        "answers": _answers,
        "modality": _distinct(sequence(one_of(*get_args(Modality)), len(get_args(Modality)), least=1)),
        "examples": sequence(text(EXAMPLE_LENGTH, least=1, controls="all"), EXAMPLE_LIMIT),
    }
)
