"""Choices: the tokens of `choose`, always one of the texts, and the label that `choose` finds where it is likely."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lime_edge.errors import ConfigError
from lime_edge.runtime.constraints.choice_trie import ChoiceConstraint, ChoiceTrie, encode
from lime_edge.runtime.constraints.constraint import restrict
from lime_edge.runtime.decoding.scoring import encode_choices, log_softmax
from lime_edge.runtime.text.prompts import Text
from tests.support.runtime_models import edit_json, tiny_text
from tests.support.tiny import tiny_tokenizer

from .walks import VOCABULARY, constraint, walk

_LISTS = st.lists(
    st.text(st.sampled_from("ab yé\n😀"), min_size=1, max_size=6) | st.sampled_from([" the answer", " the", "user"]),
    min_size=1,
    max_size=12,
    unique=True,
)


@settings(max_examples=150, deadline=None)
@given(_LISTS, st.integers(0, 9))
def test_an_answer_is_one_of_the_choices(choices: list[str], seed: int) -> None:
    text, ids = walk(constraint(choices), seed)
    assert text in choices
    assert ids == encode_choices(choices, tiny_text())[text].tolist()


def test_every_choice_can_be_reached() -> None:
    choices = ["a", "ab", "abc", " yes", " no", "é"]
    assert {walk(constraint(choices), seed)[0] for seed in range(200)} == set(choices)


@settings(max_examples=60, deadline=None)
@given(_LISTS, st.integers(0, 99), st.floats(7, 12))
def test_greedy_finds_a_label_that_choose_gives_over_one_half(choices: list[str], seed: int, strength: float) -> None:
    """The model's logits depend on the tokens before; those along one choice are raised."""
    tokens = encode_choices(choices, tiny_text())
    wanted = choices[seed % len(choices)]

    def logits(before: list[int]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        found = np.random.default_rng([seed, *before]).standard_normal(VOCABULARY).astype(np.float32)
        line = tokens[wanted].tolist()
        if line[: len(before)] == before and len(before) < len(line):
            found[line[len(before)]] += strength
        return found

    scores = {
        label: sum(log_softmax(logits(ids[:at].tolist()))[ids[at]] for at in range(len(ids)))
        for label, ids in tokens.items()
    }
    likeliest = max(scores, key=lambda label: scores[label])
    assume(scores[likeliest] > np.log(0.5))
    row, before = constraint(choices), list[int]()
    while not row.done:
        found = logits(before)
        restrict(found, row.allowed())
        before.append(int(found.argmax()))
        row.accept(before[-1])
    assert before == tokens[likeliest].tolist()


def _row(*choices: str) -> ChoiceConstraint:
    found = constraint(list(choices))
    assert isinstance(found, ChoiceConstraint)
    return found


def test_forced_and_remaining() -> None:
    text, row = tiny_text(), _row("yes", "no", "yes sir")
    yes, end = tuple(text.encode("yes")), text.end_id
    assert row.forced() == []
    row.accept(yes[0])
    assert row.forced() == [*yes[1:]]
    assert row.remaining() == {"yes": (*yes[1:], end), "yes sir": (*text.encode("yes sir")[1:], end)}
    for token in yes[1:]:
        row.accept(token)
    assert (row.complete, row.done, row.forced()) == (True, False, [])
    row.accept(end)
    assert (row.complete, row.done, row.forced()) == (False, True, [])
    assert not row.allowed().any()
    row.rollback(len(yes) + 1)
    row.accept(text.encode("no")[0])
    assert row.forced() == [*text.encode("no")[1:], end]


def test_a_trie_shares_what_begins_alike() -> None:
    trie = ChoiceTrie(encode(["aa", "ab"], tiny_text()))
    assert [len(children) for children in trie.nodes] == [1, 2, 1, 0, 1, 0]


def test_misuse() -> None:
    row = _row("yes", "no")
    with pytest.raises(ConfigError, match="token 319 is not allowed here"):
        row.accept(319)
    with pytest.raises(ConfigError, match="rollback of 1 tokens; 0 were accepted"):
        row.rollback(1)


def test_choices_that_the_tokenizer_cannot_write(tmp_path: Path) -> None:
    """This tokenizer composes characters, so no answer could have the decomposed form."""
    edit_json(tiny_tokenizer(tmp_path) / "tokenizer.json", lambda document: document.update(normalizer={"type": "NFC"}))
    text = Text(tmp_path, [2], context_length=20)
    with pytest.raises(ConfigError) as caught:
        encode(["\u00e9", "e\u0301", "o\u0308", "a" * 1000], text)
    assert [fault[:6] for fault in caught.value.faults] == ["choice"] * 3
    assert "room for at most" in caught.value.faults[2]


def test_text_of_special_tokens_is_text() -> None:
    assert walk(constraint(["<|im_end|>"]), 0)[0] == "<|im_end|>"
