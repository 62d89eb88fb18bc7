"""Tokens as bytes, for vocabularies of bytes and of SentencePiece."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.models import BPE

from lime_edge.runtime.text.token_bytes import TokenBytes
from tests.support.runtime_models import tiny_text


@given(st.text(max_size=40))
def test_the_tokens_of_a_text_are_its_bytes(text: str) -> None:
    """Also those that are a part of a character, which no tokenizer decodes alone."""
    tokenizer = tiny_text().tokenizer
    known = TokenBytes(tokenizer)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    special = {number for number in known._added if known._added[number] in text}
    if not special:
        assert b"".join(map(known.of, ids)) == text.encode()


def test_special_tokens_are_their_names_and_unknown_ids_are_nothing() -> None:
    tokenizer = tiny_text().tokenizer
    known = TokenBytes(tokenizer)
    assert known.of(tokenizer.token_to_id("<|im_start|>")) == b"<|im_start|>"
    assert known.of(10**6) == b""


def test_sentencepiece() -> None:
    vocabulary = {"<unk>": 0, "<0xC3>": 1, "<0xA9>": 2, "\u2581caf": 3, "\u2581": 4}
    tokenizer = Tokenizer(BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken("<unk>", special=True)])
    assert [TokenBytes(tokenizer).of(number) for number in range(5)] == [b"<unk>", b"\xc3", b"\xa9", b" caf", b" "]
