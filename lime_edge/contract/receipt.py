"""The receipt of an answer: what a document must look like to be one. JSON Schema: docs/receipt.schema.json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lime_edge.common.strict_json import Check, mapping, number, one_of, record, sequence, show, text, whole

_DIGEST = text(64, least=64, pattern="[0-9a-f]{64}", what="a SHA-256 in lower-case hex")
_NAME = text(4096, least=1)
_COUNT = whole(0, 2**40)
_SECONDS = number(0, 1e9)
_SHARE = number(0, 1)
_SKILLS_LIMIT = 1024


def _optional(check: Check) -> Check:
    def found(where: str, value: Any) -> Iterator[str]:
        if value is not None:
            yield from check(where, value)

    return found


def _object(where: str, value: Any) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is {show(value)}; expected an object"


_SKILLS = sequence(
    record(
        {
            "name": _NAME,
            "version": _NAME,
            "digest": _DIGEST,
            "generation": _COUNT,
            "signer": _optional(_object),
            "weight": number(-1e6, 1e6),
        }
    ),
    _SKILLS_LIMIT,
)
_TOKENS = {"prompt": _COUNT, "reused": _COUNT, "new": _COUNT, "drafted": _COUNT, "accepted": _COUNT}
_ROUTE = {
    "probabilities": mapping(_NAME, _SHARE),
    "none": _SHARE,
    "why": text(10_000),
    "seconds": _SECONDS,
}
_SWITCH = {"after_tokens": _COUNT, "seconds": _SECONDS, "skills": _SKILLS}

_RECEIPT = record(
    {
        "skills": _SKILLS,
        "activation": _optional(one_of("always", "response")),
        "backbone": _DIGEST,
        "adapter": _DIGEST,
        "graph": _DIGEST,
        "precision": one_of("int4", "fp16", "fp32"),
    },
    {
        "tokens": record(_TOKENS),
        "switches": sequence(record(_SWITCH), 10_000),
        "past": sequence(_SKILLS, 10_000),
        "route": record(_ROUTE),
    },
)


def receipt_faults(document: Any) -> list[str]:
    """Every fault of a parsed receipt, one line each."""
    return list(_RECEIPT("the receipt", document))
