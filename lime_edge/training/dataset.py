"""Training examples: tokenise rows and collate them into batches.

The tokenizer's chat template formats the prompt. Only the answer and the end-of-turn token contribute to the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lime_edge.common.extras import require_extra
from lime_edge.errors import DataError
from lime_edge.evaluation.examples import Row

with require_extra("train"):
    import torch

_IGNORED = -100  # label that the loss ignores


@dataclass(frozen=True)
class Example:
    """A tokenised row.

    Attributes:
        input_ids: Prompt, answer and end-of-turn token.
        answer_start: Index of the answer's first token.
        response_start: Index of the first token of the assistant's turn, header included. A skill with activation
            "response" is active from there on.
    """

    input_ids: tuple[int, ...]
    answer_start: int
    response_start: int


def with_system(messages: Sequence[dict[str, str]], system: str | None) -> list[dict[str, str]]:
    """The conversation with a skill's system text in front, unless it starts with a system message of its own."""
    if system is None or (messages and messages[0]["role"] == "system"):
        return list(messages)
    return [{"role": "system", "content": system}, *messages]


def encode_prompt(
    tokenizer: Any, messages: Sequence[dict[str, str]], system: str | None = None
) -> tuple[list[int], int]:
    """Token ids of the conversation up to the answer, and the index at which the assistant's turn starts.

    If the template formats earlier turns differently once an answer is expected, that index is the last token's.
    """
    chat = with_system(messages, system)
    ids: list[int] = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    before: list[int] = tokenizer.apply_chat_template(chat, add_generation_prompt=False, return_dict=False)
    return ids, len(before) if ids[: len(before)] == before else len(ids) - 1


def encode(tokenizer: Any, row: Row, system: str | None = None) -> Example:
    """Tokenise a row: formatted prompt, answer, end-of-turn token."""
    prompt, response_start = encode_prompt(tokenizer, row.messages, system)
    answer: list[int] = tokenizer.encode(row.answer, add_special_tokens=False)
    return Example((*prompt, *answer, tokenizer.eos_token_id), len(prompt), response_start)


class Examples(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokenised rows of at most `max_length` tokens, in the form that the Trainer expects.

    Attributes:
        dropped: Number of rows that were left out because they are longer.
    """

    def __init__(self, tokenizer: Any, rows: Sequence[Row], max_length: int, system: str | None = None) -> None:
        encoded = [encode(tokenizer, row, system) for row in rows]
        self.examples = [example for example in encoded if len(example.input_ids) <= max_length]
        self.dropped = len(encoded) - len(self.examples)
        if not self.examples:
            raise DataError(f"all {len(encoded)} rows are longer than {max_length} tokens")

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.examples[index].input_ids, "example": self.examples[index]}


class Collator:
    """Makes left-padded batches. All answers end at the last position, so only the last K logits are computed.

    Args:
        pad_id: Token used as padding; attention and loss ignore it.
        response_only: Whether the skill is active in the assistant's turn alone.
    """

    def __init__(self, pad_id: int, response_only: bool = False) -> None:
        self.pad_id = pad_id
        self.response_only = response_only

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Collate items of `Examples`.

        Returns:
            input_ids, attention_mask, position_ids [B, S]; labels [B, K]; logits_to_keep [K]; with `response_only`
            also skill_active [B, S].
        """
        examples: list[Example] = [item["example"] for item in items]
        longest = max(len(e.input_ids) for e in examples)
        # + 1: the token before an answer predicts its first token
        keep = max(len(e.input_ids) - e.answer_start for e in examples) + 1
        ids = torch.full((len(examples), longest), self.pad_id)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, _IGNORED)
        active = torch.zeros_like(ids, dtype=torch.bool)
        for i, example in enumerate(examples):
            begin = longest - len(example.input_ids)
            ids[i, begin:] = torch.tensor(example.input_ids)
            mask[i, begin:] = 1
            labels[i, begin + example.answer_start :] = ids[i, begin + example.answer_start :]
            active[i, begin + example.response_start :] = True
        batch = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(1) - 1).clamp_min(0),
            "labels": labels[:, -keep:],
            # indices: with a count, torch would copy the output embedding (docs/log.md)
            "logits_to_keep": torch.arange(longest - keep, longest),
        }
        return batch | ({"skill_active": active} if self.response_only else {})
