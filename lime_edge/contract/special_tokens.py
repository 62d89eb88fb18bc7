"""Encodes text whose parts are data, so that special tokens come from the chat template alone.

Text without special-token text is encoded as it is. For other text there is a second tokenizer, created when it is
first needed, in which every special token has a secret name: the template's own special tokens are replaced by these
names before the text is encoded, and what looks like a special token in the data is ordinary text.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import Any

from lime_edge.common.strict_json import show
from lime_edge.errors import ConfigError

Span = tuple[int, int, int]

_FIRST_STANDIN = 0x100000  # private use: a character that stands for the first one of a special token in the data


class SpecialTokens:
    """The special tokens of one tokenizer, and how to encode text around them.

    Args:
        tokenizer: A `tokenizers.Tokenizer` without truncation and padding. It is only read.
        markers: Ids of further added tokens that only the chat template may produce.
    """

    def __init__(self, tokenizer: Any, markers: Collection[int] = ()) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        special = {number: token for number, token in added.items() if token.special or number in markers}
        self.names: dict[int, str] = {number: token.content for number, token in special.items() if token.content}
        self._heads = {name[:end] for name in self.names.values() for end in range(1, len(name))}
        self._tails = {name[start:] for name in self.names.values() for start in range(1, len(name))}
        self._longest = max(map(len, self.names.values()), default=0)
        # A normaliser may turn other text into such a token.
        self._normalised = tokenizer.normalizer is not None and any(token.normalized for token in special.values())

    def encode(self, text: str) -> list[int]:
        """Token ids of text in which special tokens are special."""
        ids: list[int] = self._encoding(text).ids
        return ids

    def plain(self, text: str) -> list[int]:
        """Token ids of text that is data from beginning to end."""
        if not self.suspicious([text]):
            return self.encode(text)
        hidden, back = self.hide([text])
        return self.encode_marked(text, hidden[0], back)

    def suspicious(self, texts: Collection[str]) -> bool:
        """Whether special tokens could come out of these texts, alone or together with what stands next to them."""
        return any(True for text in texts for _ in self._places(text))

    def hide(self, texts: Collection[str]) -> tuple[list[str], dict[int, str]]:
        """Replace one character of everything that could become a special token.

        Returns:
            The texts, and a table for `str.translate` that restores them.

        Raises:
            ConfigError: The texts leave no character to put in the place of another.
        """
        used = {ord(char) for text in texts for char in text if ord(char) >= _FIRST_STANDIN}
        free = (chr(code) for code in range(_FIRST_STANDIN, sys.maxunicode) if code not in used)
        standins: dict[str, str] = {}
        hidden = []
        for text in texts:
            chars = list(text)
            for at in set(self._places(text)):
                standins[text[at]] = chars[at] = standins.get(text[at]) or next(free, "")
            hidden.append("".join(chars))
        if "" in standins.values():
            raise ConfigError("the text uses every private character above U+100000; expected one that is free")
        return hidden, {ord(standin): char for char, standin in standins.items()}

    def encode_marked(self, text: str, marked: str, back: Mapping[int, str]) -> list[int]:
        """Token ids of a rendering.

        Args:
            text: The template rendered with the data as they are.
            marked: The template rendered with the data from `hide`: its special tokens are the template's own.
            back: The table from `hide`.

        Raises:
            ConfigError: The tokenizer has no way to write the text of a special token.
        """
        standins = {chr(code) for code in back}
        own = [span for span in self._spans(self._encoding(marked)) if standins.isdisjoint(marked[span[1] : span[2]])]
        if marked.translate(back) == text:
            usual = self._encoding(text)
            if self._spans(usual) == own:  # the data was harmless
                return list(usual.ids)
        return self._encode_renamed(marked, own, back)

    def _encode_renamed(self, marked: str, own: list[Span], back: Mapping[int, str]) -> list[int]:
        tokenizer, renamed = self._renamed
        pieces, last = [], 0
        for number, start, end in own:
            pieces += [marked[last:start].translate(back), renamed[number]]
            last = end
        ids: list[int] = _encoded(tokenizer, "".join([*pieces, marked[last:].translate(back)])).ids
        control = self.names.keys() - {self._unknown}
        if [number for number in ids if number in control] != [number for number, _, _ in own if number in control]:
            raise ConfigError("the prompt holds the text of special tokens, which this tokenizer cannot write as text")
        return ids

    def _spans(self, encoding: Any) -> list[Span]:
        """The special tokens of an encoding: id, start and end in the text."""
        pairs = zip(encoding.ids, encoding.offsets, strict=True)
        return [(number, start, end) for number, (start, end) in pairs if number in self.names]

    def _encoding(self, text: str) -> Any:
        return _encoded(self._tokenizer, text)

    def _places(self, text: str) -> Iterator[int]:
        """The character to hide in each part of a text that is, or could become, a special token."""
        for name in self.names.values():
            at = text.find(name)
            while at >= 0:
                yield at
                at = text.find(name, at + 1)
        if self._normalised:
            for _, start, end in self._spans(self._encoding(text)):
                if text[start:end].strip():
                    yield end - len(text[start:end].lstrip())
        inside = text.strip()
        start = len(text) - len(text.lstrip())
        for size in range(1, min(self._longest, len(inside) + 1)):
            if inside[-size:] in self._heads:
                yield start + len(inside) - 1
            if inside[:size] in self._tails:
                yield start

    @cached_property
    def _unknown(self) -> int | None:
        """The token that the tokenizer's model writes for unknown characters."""
        name = getattr(self._tokenizer.model, "unk_token", None)
        number: int | None = None if name is None else self._tokenizer.token_to_id(name)
        return number

    @cached_property
    def _renamed(self) -> tuple[Any, dict[int, str]]:
        """The tokenizer with secret names for its special tokens, and these names by id."""
        document = json.loads(self._tokenizer.to_str())
        key = secrets.token_hex(16)  # a name that no text can contain on purpose
        names = {name: f"\U000f0000{key}:{number}\U000f0001" for number, name in self.names.items()}
        for token in document["added_tokens"]:
            if token["content"] in names:
                token |= {"content": names[token["content"]], "normalized": False}
        model = document["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {names.get(name, name): number for name, number in model["vocab"].items()}
        else:
            model["vocab"] = [[names.get(name, name), score] for name, score in model["vocab"]]
        if "merges" in model:
            model["merges"] = [pair for pair in model["merges"] if names.keys().isdisjoint(_merged(pair))]
        if model.get("unk_token") in names:
            model["unk_token"] = names[model["unk_token"]]
        made = type(self._tokenizer).from_str(json.dumps(document))
        return made, {number: names[name] for number, name in self.names.items()}


def _merged(pair: Any) -> tuple[str, str, str]:
    left, right = pair.split(" ") if isinstance(pair, str) else pair
    return left, right, left + right


def _encoded(tokenizer: Any, text: str) -> Any:
    try:
        return tokenizer.encode(text, add_special_tokens=False)
    except Exception as error:  # tokenizers raises bare Exception, and TypeError for lone surrogates
        raise ConfigError(f"the tokenizer cannot encode {show(text)}: {error}") from error
