"""Choices: the tokens of `choose`, always one of the texts, and the label that `choose` finds where it is likely."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lime_edge.errors import ConfigError
from lime_edge.runtime.constraints.choice_trie import ChoiceConstraint, ChoiceTrie, encode
from lime_edge.runtime.decoding.scoring import encode_choices
from lime_edge.runtime.text.prompts import Text
from tests.support.runtime_models import edit_json, tiny_text
from tests.support.tiny import tiny_tokenizer

from .walks import constraint, walk

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


def test_settled_on_one_choice() -> None:
    text, row = tiny_text(), _row("yes", "no", "yes sir")
    row.accept(text.encode("yes")[0])
    row.settle("yes sir")
    assert row.forced() == [*text.encode("yes sir")[1:], text.end_id]
    assert list(row.remaining()) == ["yes sir"]
    row.rollback(1)
    assert row.forced() == [*text.encode("yes sir"), text.end_id]


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
