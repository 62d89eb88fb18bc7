"""Prompts in a skill's own format with a slot for a word, and the probe that compares the answers to them.

The format comes from the golden prompts of the package: their common prefix and suffix are the frame, and the tokens
between are a prompt's own words. Candidate words are inserted after these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.runtime.facade.probe import Probe
from lime_edge.runtime.text.prompts import Text

Ids = tuple[int, ...]
Float64 = npt.NDArray[np.float64]

_SPACES = ("Ġ", "▁")  # how vocabularies write the space before a word


def alike(sequences: Sequence[Sequence[Any]]) -> int:
    """Length of the common prefix of all sequences."""
    return sum(1 for _ in takewhile(lambda items: len(set(items)) == 1, zip(*sequences, strict=False)))


@dataclass(frozen=True)
class Context:
    """A prompt of the skill with a slot for tokens after its own words."""

    front: Ids
    tail: Ids

    def filled(self, tokens: Iterable[int] = ()) -> list[int]:
        """Token ids of the prompt with `tokens` in the slot."""
        return [*self.front, *tokens, *self.tail]


def contexts_of(
    golden: Sequence[Sequence[int]], words: Sequence[Sequence[int]], ending: Sequence[int]
) -> list[Context]:
    """Prompts in the skill's own format: the golden prompts, then their frame around other texts.

    Args:
        golden: Token ids of the golden prompts.
        words: Token ids of neutral texts.
        ending: Suffix of every prompt of this model; the frame's suffix if there is only one golden prompt.
    """
    known: list[Ids] = list(dict.fromkeys(tuple(ids) for ids in golden))
    head = known[0][: alike(known)]
    tail = _tail(known) if len(known) > 1 else tuple(ending)
    own = [ids[: len(ids) - len(tail)] for ids in known]
    framed: list[Ids] = [(*head, *text) for text in words] if len(known) > 1 else []
    return [Context(front, tail) for front in [*own, *framed]]


def _tail(prompts: Sequence[Sequence[int]]) -> Ids:
    """The common suffix."""
    count = alike([ids[::-1] for ids in prompts])
    return tuple(prompts[0][len(prompts[0]) - count :])


class PromptProbe:
    """Reads one skill's distributions at the places where answers differ.

    There are one or two places: the first token of the answer and, if the clean answers share a proper prefix, the
    first token after it.

    Args:
        probe: The skill.
        contexts: Prompts to try candidates in.
        clean: Answers to some prompts without a candidate; their common prefix fixes the second place.
    """

    def __init__(self, probe: Probe, contexts: Sequence[Context], clean: Sequence[Sequence[int]]) -> None:
        shared = tuple(clean[0][: alike(clean)]) if len(clean) > 1 else ()
        self.probe, self.contexts = probe, contexts
        self.prefix: Ids = shared if all(len(shared) < len(answer) for answer in clean) else ()

    def after(self, context: Context, tokens: Iterable[int] = ()) -> Float64:
        """Log-probabilities, [places, V]."""
        return np.stack(self.probe.after(context.filled(tokens), self.prefix))

    def answer(self, context: Context, tokens: Iterable[int] = ()) -> Ids:
        """The most likely token at each place."""
        return tuple(self.after(context, tokens).argmax(1).tolist())


def ending(text: Text) -> Ids:
    """The tokens that end every prompt of a model: the end of its chat template."""
    ids = [tuple(text.tokens(word).ids.tolist()) for word in "xy"]
    return _tail(ids)


def vocabulary(text: Text, whole: bool) -> list[int]:
    """Tokens that start a word and consist of letters; with `whole`, or if there are none, all but special tokens."""
    names = text.tokenizer.get_vocab(with_added_tokens=True)
    special = {number for number, token in text.tokenizer.get_added_tokens_decoder().items() if token.special}
    known = sorted((number, name) for name, number in names.items() if number not in special)
    words = [number for number, name in known if name[:1] in _SPACES and len(name) > 2 and name[1:].isalpha()]
    return [number for number, _ in known] if whole or not words else words
