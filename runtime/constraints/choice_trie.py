"""Answers that are one of several given texts: a trie of their tokens.

A choice has the tokens that `choose` scores: those that the tokenizer gives to its text alone, as in training, and then
the end-of-turn token. Of several end-of-turn tokens only this one is allowed.

Greedy decoding over the trie would surely find the likeliest label only where P(choice + end of turn | prompt) is over
one half: a first token that begins many texts outside the trie wins against the whole of a likelier label, and labels
that begin alike win together. So at temperature 0 the decoding loop scores the choices in `ChoiceConstraint.remaining`
as `choose` does, and settles on the best; the trie is for sampling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lime_edge.common.strict_json import bounded, show
from lime_edge.errors import ConfigError
from lime_edge.runtime.text.prompts import Text

from .constraint import Mask


def encode(choices: Sequence[str], text: Text) -> dict[str, tuple[int, ...]]:
    """Tokens of every choice, including the end-of-turn token.

    Raises:
        ConfigError: Names every choice that its tokens do not spell, such as text of special tokens.
    """
    found: dict[str, tuple[int, ...]] = {}
    faults = []
    for choice in choices:
        try:
            ids = text.encode(choice)
        except ConfigError as fault:
            faults.append(f"choice {show(choice)}: {fault}")
            continue
        spelled = text.tokenizer.decode(ids, skip_special_tokens=True)
        if spelled != choice or not text.eos_ids.isdisjoint(ids):
            faults.append(f"choice {show(choice)} reads {show(spelled)} in the model's tokens; expected the same text")
        found[choice] = (*ids, text.end_id)
    if faults:
        raise ConfigError("the model's tokenizer cannot write these choices", bounded(faults))
    return found


class ChoiceTrie:
    """The trie of several token sequences; shared by the constraints of all rows.

    Args:
        choices: From `encode`; every sequence ends with the end-of-turn token, which none contains before.

    Attributes:
        nodes: The children of each node, as token -> number of the child; node 0 is the root, and an answer ends in a
            node without children.
    """

    def __init__(self, choices: Mapping[str, tuple[int, ...]]) -> None:
        self.choices = choices
        self.nodes: list[dict[int, int]] = [{}]
        for ids in choices.values():
            at = 0
            for token in ids:
                at = self.nodes[at].setdefault(token, len(self.nodes))
                if at == len(self.nodes):
                    self.nodes.append({})


class ChoiceConstraint:
    """The answer is one of the choices of a trie. Implements `Constraint`.

    Args:
        trie: The choices.
        vocabulary: V.
        end_id: The end-of-turn token of the trie.
    """

    def __init__(self, trie: ChoiceTrie, vocabulary: int, end_id: int) -> None:
        self._trie, self._vocabulary, self._end_id = trie, vocabulary, end_id
        self._path = [0]  # the nodes from the root to where the answer is
        self._tokens: list[int] = []

    @property
    def complete(self) -> bool:
        return self._end_id in self._children()

    @property
    def done(self) -> bool:
        return not self._children()

    def allowed(self) -> Mask:
        mask = np.zeros(self._vocabulary, np.bool_)
        mask[list(self._children())] = True
        return mask

    def forced(self) -> list[int]:
        found: list[int] = []
        children = self._children()
        while len(children) == 1:
            [(token, node)] = children.items()
            found.append(token)
            children = self._trie.nodes[node]
        return found

    def accept(self, token: int) -> None:
        node = self._children().get(token)
        if node is None:
            raise ConfigError(f"token {token} is not allowed here; expected one of {show(sorted(self._children()))}")
        self._path.append(node)
        self._tokens.append(token)

    def rollback(self, count: int) -> None:
        if not 0 <= count <= len(self._tokens):
            raise ConfigError(f"rollback of {count} tokens; {len(self._tokens)} were accepted")
        del self._path[len(self._path) - count :], self._tokens[len(self._tokens) - count :]

    def remaining(self) -> dict[str, tuple[int, ...]]:
        """The choices that are still possible, and the tokens that each still needs."""
        done, size = tuple(self._tokens), len(self._tokens)
        return {label: ids[size:] for label, ids in self._trie.choices.items() if ids[:size] == done}

    def settle(self, label: str) -> None:
        """Leave only one of the remaining choices."""
        accepted = self._tokens
        self._trie, self._path, self._tokens = ChoiceTrie({label: self._trie.choices[label]}), [0], []
        for token in accepted:
            self.accept(token)

    def _children(self) -> dict[int, int]:
        return self._trie.nodes[self._path[-1]]
