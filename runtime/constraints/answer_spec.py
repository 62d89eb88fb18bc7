"""What answers must look like: plain data, validated with bounded sizes because it can come from a skill's manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lime_edge.common.strict_json import bounded, load_json, one_of, record, sequence, show, text
from lime_edge.errors import ConfigError, SkillFormatError
from lime_edge.skills.interface import CHOICE_LIMIT, REGEX_LIMIT, SCHEMA_LIMIT

from .spec_limits import regex_faults, schema_faults

KINDS = ("choices", "schema", "regex", "grammar", "text")
MANIFEST_KINDS = ("choices", "schema", "regex", "text")  # a grammar can ask for unbounded work: callers only
TEXT_LIMIT = 2**16  # characters of all choices together, or of a grammar

_choices = sequence(text(CHOICE_LIMIT, least=1, controls="all"), CHOICE_LIMIT, least=1)
_shape = record({"kind": one_of(*MANIFEST_KINDS), "value": lambda where, value: iter(())})


@dataclass(frozen=True)
class AnswerSpec:
    """What the text of an answer must be.

    Attributes:
        kind: ``"choices"``: one of the given texts. ``"schema"``: JSON that a JSON schema describes, with properties in
            the schema's order and formatted as json.dumps does. ``"regex"``: the whole text matches a regular
            expression, in the syntax of Rust's regex crate without look-around (``\\d`` is any Unicode digit).
            ``"grammar"``: a context-free grammar, Lark text as llguidance reads it. ``"text"``: any text.
        value: A list of texts (kept as a tuple), a schema as a dict or JSON text (kept as text, because the order of
            its properties matters), the expression, the grammar; None for ``"text"``.

    Raises:
        ConfigError: Names every fault.
    """

    kind: str
    value: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _plain(self.kind, self.value))
        if faults := list(_faults(self.kind, self.value)):
            raise ConfigError("the answer specification is invalid", bounded(faults))

    @classmethod
    def of(cls, answers: Any) -> AnswerSpec:
        """What users write as ``answers=``: a list of choices, a JSON schema as a dict, or an AnswerSpec.

        Raises:
            ConfigError: It is none of them, or names every fault.
        """
        if isinstance(answers, AnswerSpec):
            return answers
        if isinstance(answers, Mapping):
            return cls("schema", answers)
        if isinstance(answers, list | tuple):
            return cls("choices", answers)
        raise ConfigError(
            f"answers is {show(answers)}; expected a list of choices, a JSON schema as a dict, or an AnswerSpec such "
            "as AnswerSpec('regex', '[0-9]+')"
        )

    def to_dict(self) -> dict[str, Any]:
        """The form in a manifest: ``{kind, value}``; a schema is JSON text, choices are a list."""
        return {"kind": self.kind, "value": list(self.value) if self.kind == "choices" else self.value}

    @classmethod
    def from_dict(cls, document: Any) -> AnswerSpec:
        """Read the form that `to_dict` returns from an untrusted manifest; grammars are refused.

        Raises:
            SkillFormatError: Names every fault.
        """
        faults = list(_shape("answers", document))
        if not faults:
            kind, value = document["kind"], document["value"]
            if kind == "schema" and not isinstance(value, str):
                faults.append(
                    f"answers.value is {show(value)}; expected the JSON schema as text, which keeps its order"
                )
            else:
                faults += _faults(kind, tuple(value) if isinstance(value, list) else value)
        if faults:
            raise SkillFormatError("the answer specification is invalid", bounded(faults))
        return cls(document["kind"], document["value"])


def _plain(kind: str, value: Any) -> Any:
    """Immutable values: a tuple for a list, JSON text for a schema; whatever is invalid stays as it is."""
    if kind == "choices" and isinstance(value, list):
        return tuple(value)
    if kind == "schema" and isinstance(value, Mapping):
        try:
            return json.dumps(dict(value), ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            return value
    return value


def _faults(kind: Any, value: Any) -> Iterator[str]:
    if not isinstance(kind, str) or kind not in KINDS:
        yield f"kind is {show(kind)}; expected one of {', '.join(KINDS)}"
    elif kind == "choices":
        yield from _choice_faults(value)
    elif kind == "schema":
        yield from _schema_text_faults(value)
    elif kind == "text":
        if value is not None:
            yield f"value is {show(value)}; expected none (null) for text"
    else:
        found = list(text(REGEX_LIMIT if kind == "regex" else TEXT_LIMIT, least=1, controls="all")(kind, value))
        yield from found
        if kind == "regex" and not found:
            yield from regex_faults("regex", value)


def _choice_faults(value: Any) -> Iterator[str]:
    found = list(_choices("choices", list(value) if isinstance(value, tuple) else value))
    yield from found
    if found:
        return
    if len(set(value)) < len(value):
        yield f"choices is {show(list(value))}; expected each choice only once"
    if (total := sum(map(len, value))) > TEXT_LIMIT:
        yield f"choices have {total} characters; expected at most {TEXT_LIMIT} together"


def _schema_text_faults(value: Any) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"schema is {show(value)}; expected a JSON schema: an object of JSON values, or its JSON text"
    elif len(value) > SCHEMA_LIMIT:
        yield f"schema has {len(value)} characters; expected at most {SCHEMA_LIMIT}"
    else:
        try:
            schema = load_json(value)
        except ValueError as error:
            yield f"schema is not JSON: {error!s:.200}"
        else:
            yield from schema_faults(schema)
