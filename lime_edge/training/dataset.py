"""Training examples: tokenise rows and collate them into batches.

The tokenizer's chat template formats the prompt. Only the answer and the end-of-turn token contribute to the loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lime_edge.common.extras import require_extra
from lime_edge.contract.conversation import Chat, Messages
from lime_edge.errors import ConfigError, DataError
from lime_edge.evaluation.content import has_media
from lime_edge.evaluation.examples import Row

from .backbone import PICTURES
from .pictures.batch_pictures import batch_pictures

with require_extra("train"):
    import torch

if TYPE_CHECKING:
    from .pictures.picture_features import PictureFeatures, Pictures

_IGNORED = -100  # label that the loss ignores
_LEAST = 0.1  # share of the rows that has to be short enough
_NEARLY_ALL = 0.95


@dataclass(frozen=True)
class Example:
    """A tokenised row.

    Attributes:
        input_ids: Prompt, answer and end-of-turn token.
        answer_start: Index of the answer's first token.
        response_start: Index of the first token of the assistant's turn, header included. A skill with activation
            "response" is active from there on.
        pictures: None for a row of text.
    """

    input_ids: tuple[int, ...]
    answer_start: int
    response_start: int
    pictures: Pictures | None = None


@lru_cache(maxsize=4)
def chat_of(tokenizer: Any) -> Chat:
    """The chat template and the tokenizer of a checkpoint, used as the runtime uses them.

    Raises:
        ConfigError: The tokenizer has no tokenizer.json, which the runtime needs.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(f"{type(tokenizer).__name__} has no tokenizer.json; expected a tokenizer that has one")
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()

    def render(messages: Messages, answer: bool) -> str:
        text: str = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=answer)
        return text

    encoder: PictureFeatures | None = getattr(tokenizer, PICTURES, None)
    return Chat(backend, render, tokenizer.get_chat_template(), encoder.placeholders if encoder else None)


def encode_with_pictures(
    tokenizer: Any, messages: Sequence[dict[str, Any]], system: str | None = None
) -> tuple[list[int], int, Pictures | None]:
    """Token ids of the conversation up to the answer, the start of the assistant's turn, and the pictures.

    See `lime_edge.contract.conversation`: what stands in a message is text; only the template writes special tokens.

    Raises:
        ConfigError: The template rejects the conversation, or it has pictures and the model takes none.
    """
    chat = chat_of(tokenizer)
    encoder: PictureFeatures | None = getattr(tokenizer, PICTURES, None)
    if encoder is not None and has_media(messages):
        return encoder.encode(chat, messages, system)
    return *chat.prompt(messages, system), None


def encode_prompt(
    tokenizer: Any, messages: Sequence[dict[str, Any]], system: str | None = None
) -> tuple[list[int], int]:
    """Token ids of the conversation up to the answer, and the index at which the assistant's turn starts."""
    ids, start, _ = encode_with_pictures(tokenizer, messages, system)
    return ids, start


def encode(tokenizer: Any, row: Row, system: str | None = None) -> Example:
    """Tokenise a row: formatted prompt, answer, end-of-turn token."""
    prompt, response_start, pictures = encode_with_pictures(tokenizer, row.messages, system)
    answer = chat_of(tokenizer).text(row.answer)
    return Example((*prompt, *answer, tokenizer.eos_token_id), len(prompt), response_start, pictures)


def encoded_prompt(tokenizer: Any, row: Row, system: str | None = None) -> list[int]:
    """Token ids of a row's prompt.

    Raises:
        DataError: The chat template rejects the messages; names the row.
    """
    with _named(row):
        return encode_prompt(tokenizer, row.messages, system)[0]


@contextmanager
def _named(row: Row) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a chat template is a program and can raise anything
        raise DataError(f"{row.place or 'a row'} cannot be put into the chat template: {error}") from error


def _encoded(tokenizer: Any, row: Row, system: str | None) -> Example:
    with _named(row):
        return encode(tokenizer, row, system)


class Examples(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokenised rows of at most `max_length` tokens, in the form that the Trainer expects.

    Attributes:
        dropped: Number of rows that were left out because they are longer.
        lengths: Number of tokens of every row, also of those left out, in ascending order.

    Raises:
        DataError: The chat template rejects a row, or less than a tenth of the rows is short enough.
    """

    def __init__(self, tokenizer: Any, rows: Sequence[Row], max_length: int, system: str | None = None) -> None:
        encoded = [_encoded(tokenizer, row, system) for row in rows]
        self.examples = [example for example in encoded if len(example.input_ids) <= max_length]
        self.dropped = len(encoded) - len(self.examples)
        self.lengths = sorted(len(example.input_ids) for example in encoded)
        if len(self.examples) < max(1, _LEAST * len(encoded)):
            said = f"{self.dropped} of {len(encoded)} rows are longer than {max_length} tokens, too many to go on"
            raise DataError(f"{said}; {self.advice()}")

    def advice(self) -> str:
        """The maximum length that would keep nearly all rows."""
        enough = self.lengths[math.ceil(_NEARLY_ALL * len(self.lengths)) - 1]
        return f"--max-length {enough} would keep {100 * _NEARLY_ALL:.0f} % of them"

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
            also skill_active [B, S]; with pictures also features [F, H] and feature_ids [B, S].
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
        pictures = [example.pictures for example in examples]
        batch |= batch_pictures(pictures, [len(e.input_ids) for e in examples], batch["position_ids"])
        return batch | ({"skill_active": active} if self.response_only else {})
