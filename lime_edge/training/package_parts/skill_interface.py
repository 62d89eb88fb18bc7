"""What a package says of its requests and answers besides the vectors: the interface and the draft table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from lime_edge.evaluation.content import modalities, text_of
from lime_edge.evaluation.examples import Row
from lime_edge.evaluation.instruction import Instruction, is_request
from lime_edge.evaluation.splits import prompt_key
from lime_edge.skills.draft_table import DraftTable
from lime_edge.skills.interface import CHOICE_LIMIT, EXAMPLE_LIMIT, AnswerForm, Interface, Modality
from lime_edge.training.dataset import chat_of

_EXAMPLE = 200  # characters of the longest example
_CHOICES = 2**16  # characters of all choices together that a runtime takes


def interface_of(
    rows: Sequence[Row], kept: Instruction, answers: AnswerForm | None = None, system: str | None = None
) -> Interface:
    """The interface of a skill.

    Args:
        rows: The rows to train on, with bare requests as prompts.
        kept: What a request is put into; empty if it stays bare.
        answers: The form of the answers. None: the choices, if all rows have the same ones, and else free text.
        system: System text of the skill.
    """
    return Interface(
        system=system,
        prefix=kept.beginning,
        suffix=kept.ending,
        answers=answers or _choices(rows),
        modality=_modality(rows),
        examples=_examples(rows),
    )


def draft_table(tokenizer: Any, rows: Sequence[Row]) -> DraftTable | None:
    """The draft table of the answers, encoded as the runtime encodes them; None if no sequence is frequent enough.

    Rows that repeat another one count once, so that a repeated row does not become frequent by itself.
    """
    different = sorted({(prompt_key(row), row.answer) for row in rows})
    text = chat_of(tokenizer).text
    return DraftTable.build([text(answer) for _, answer in different])


def _choices(rows: Sequence[Row]) -> AnswerForm:
    first = rows[0].choices
    same = all(set(row.choices) == set(first) for row in rows)
    fits = len(first) <= CHOICE_LIMIT and all(len(choice) <= CHOICE_LIMIT for choice in first)
    if first and same and fits and sum(map(len, first)) <= _CHOICES:
        return AnswerForm("choices", list(first))
    return AnswerForm()


def _modality(rows: Sequence[Row]) -> tuple[Any, ...]:
    kinds = {kind for row in rows for kind in modalities(row.messages)}
    return tuple(kind for kind in get_args(Modality) if kind in kinds)


def _examples(rows: Sequence[Row]) -> tuple[str, ...]:
    """Different requests of typical length; none of conversations."""
    if not all(map(is_request, rows)):
        return ()
    requests = {text_of(row.messages[0]["content"]) for row in rows}
    short = sorted((text for text in requests if 0 < len(text) <= _EXAMPLE), key=lambda text: (len(text), text))
    typical = len(short[len(short) // 2]) if short else 0
    nearest = sorted(short, key=lambda text: abs(len(text) - typical))[:EXAMPLE_LIMIT]
    return tuple(sorted(nearest, key=len))
