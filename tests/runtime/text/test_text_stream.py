"""Text of a growing answer: complete characters only, and nothing of a stop string."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lime_edge.runtime.text.prompts import Text
from lime_edge.runtime.text.text_stream import TextStream
from tests.support.runtime_models import tiny_text


@pytest.fixture(scope="module")
def text() -> Text:
    return tiny_text()


ALPHABET = st.text("ab é中😀\n", max_size=30)


@given(ALPHABET, st.lists(st.text("ab é中", min_size=1, max_size=3), max_size=1))
def test_pieces_are_whole_and_end_before_the_stop_string(text: Text, answer: str, stops: list[str]) -> None:
    stream = TextStream(text.tokenizer, stops)
    pieces = []
    for token in text.encode(answer):
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    pieces.append(stream.flush())
    end = answer.find(stops[0]) if stops else -1
    assert "".join(pieces) == (answer if end < 0 else answer[:end])
    assert stream.stopped == (end >= 0)


def test_text_is_held_back_no_longer_than_needed(text: Text) -> None:
    stream = TextStream(text.tokenizer, ["END."])
    pieces = [stream.push(token) for token in text.encode("xEND?ENEND.y")]
    assert pieces == ["x", "", "", "", "END?", "", "", "EN", "", "", "", ""]
    assert stream.stopped


def test_special_tokens_and_cut_characters_are_not_text(text: Text) -> None:
    stream = TextStream(text.tokenizer, [])
    pieces = [stream.push(token) for token in (1, *text.encode("é"), *text.encode("😀")[:2])]
    assert "".join(pieces) + stream.flush() == "é"
