"""The bytes that each token of a vocabulary stands for."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # a byte in vocabularies of SentencePiece
_SPACE = "\u2581"  # a space in vocabularies of SentencePiece


class TokenBytes:
    """Tokens of one tokenizer as bytes.

    A tokenizer decodes single tokens badly: it drops a leading space, and cannot write a part of a character.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._added = {number: token.content for number, token in tokenizer.get_added_tokens_decoder().items()}
        kinds = _kinds(json.loads(tokenizer.to_str()).get("decoder"))
        self._of_bytes = "ByteLevel" in kinds
        self.of = lru_cache(2**14)(self._of)

    def _of(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode()
        text = self._tokenizer.id_to_token(token)
        if text is None:
            return b""
        if self._of_bytes:
            return b"".join(_BYTES[character] if character in _BYTES else character.encode() for character in text)
        if found := _BYTE.fullmatch(text):
            return bytes([int(found[1], 16)])
        return text.replace(_SPACE, " ").encode()


def _kinds(decoder: Any) -> set[str]:
    """The types of a decoder and of those that it consists of."""
    if not isinstance(decoder, dict):
        return set()
    inner = (_kinds(one) for one in decoder.get("decoders", ()))
    return {str(decoder.get("type")), *(kind for kinds in inner for kind in kinds)}


def _byte_characters() -> dict[str, bytes]:
    """The visible character that stands for each byte in byte-level vocabularies (GPT-2)."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(0x100) if byte not in visible]
    characters = {chr(byte): bytes([byte]) for byte in visible}
    return characters | {chr(0x100 + number): bytes([byte]) for number, byte in enumerate(hidden)}


_BYTES = _byte_characters()
