"""Prompts in a skill's own form with a place for a word, and what the skill says at the places where answers differ.

The form is taken from the golden prompts of the package: what all begin and end with is the frame, what is between
them are a prompt's own words. Knows nothing of what is put there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.runtime.probe import Probe
from lime_edge.runtime.text.prompts import Text

Ids = tuple[int, ...]
Float64 = npt.NDArray[np.float64]

_SPACES = ("Ġ", "▁")  # how tokenizers write the space that begins a word


def alike(sequences: Sequence[Sequence[Any]]) -> int:
    """How many items all begin with."""
    return sum(1 for _ in takewhile(lambda items: len(set(items)) == 1, zip(*sequences, strict=False)))


@dataclass(frozen=True)
class Context:
    """A prompt of the skill, open where its own words end."""

    front: Ids
    tail: Ids

    def filled(self, tokens: Iterable[int] = ()) -> list[int]:
        return [*self.front, *tokens, *self.tail]


def contexts_of(
    golden: Sequence[Sequence[int]], words: Sequence[Sequence[int]], ending: Sequence[int]
) -> list[Context]:
    """Prompts in the skill's own form: those of the package, and its frame around other words.

    Args:
        golden: Token ids of the golden prompts.
        words: Token ids of neutral texts.
        ending: What every prompt of this model ends with, for a package with one golden prompt.
    """
    known: list[Ids] = list(dict.fromkeys(tuple(ids) for ids in golden))
    head = known[0][: alike(known)]
    tail = _tail(known) if len(known) > 1 else tuple(ending)
    own = [ids[: len(ids) - len(tail)] for ids in known]
    framed: list[Ids] = [(*head, *text) for text in words] if len(known) > 1 else []
    return [Context(front, tail) for front in [*own, *framed]]


def _tail(prompts: Sequence[Sequence[int]]) -> Ids:
    """What all end with."""
    count = alike([ids[::-1] for ids in prompts])
    return tuple(prompts[0][len(prompts[0]) - count :])


class PromptProbe:
    """Asks one skill what follows, at the places where answers differ."""

    def __init__(self, probe: Probe, contexts: Sequence[Context], clean: Sequence[Sequence[int]]) -> None:
        shared = tuple(clean[0][: alike(clean)]) if len(clean) > 1 else ()
        self.probe, self.contexts = probe, contexts
        self.said: Ids = shared if all(len(shared) < len(answer) for answer in clean) else ()

    def after(self, context: Context, tokens: Iterable[int] = ()) -> Float64:
        """Log-probabilities, [places, V]."""
        return np.stack(self.probe.after(context.filled(tokens), self.said))

    def answer(self, context: Context, tokens: Iterable[int] = ()) -> Ids:
        """The likeliest token of each place."""
        return tuple(self.after(context, tokens).argmax(1).tolist())


def ending(text: Text) -> Ids:
    """What every prompt of a model ends with, whatever it says."""
    ids = [tuple(text.tokens(word).ids.tolist()) for word in "xy"]
    return _tail(ids)


def vocabulary(text: Text, whole: bool) -> list[int]:
    """Tokens that begin a word and are letters alone; or all but the special ones."""
    names = text.tokenizer.get_vocab(with_added_tokens=True)
    special = {number for number, token in text.tokenizer.get_added_tokens_decoder().items() if token.special}
    known = sorted((number, name) for name, number in names.items() if number not in special)
    words = [number for number, name in known if name[:1] in _SPACES and len(name) > 2 and name[1:].isalpha()]
    return [number for number, _ in known] if whole or not words else words
