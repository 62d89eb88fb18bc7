"""Writes a chat template as pieces of text, so that browsers need no template engine.

The pieces are read off the template by rendering it with marks as contents. They are used only if they give, on a set
of conversations, the same tokens as the template itself; templates that change contents or count turns are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product
from typing import Any

from lime_edge.errors import ConfigError, ExportError
from lime_edge.runtime.text.prompts import Text

ROLES = ("system", "user", "assistant")
_MARK = "\U000f0002"
_CONTENTS = ("Hi", " two words ", "\nnext\n\n", "é中😀", "<|im_end|>", "a\n", "1 2")
Piece = list[str | int]  # text, and ids of special tokens


def chat_pieces(text: Text) -> dict[str, Any]:
    """The pieces of a model's template.

    Returns:
        ``first``: role -> piece before the first content. ``between``: ``"role>role"`` -> piece between two contents.
        ``last``: role -> piece after the last content. ``answer``: role -> the same, with the header of the answer.
        Pairs of roles that the template refuses are missing.

    Raises:
        ExportError: The template cannot be written as pieces.
    """
    pieces = {key: dict(found) for key, found in _pieces(text).items()}
    if "user" not in pieces["first"] or "user" not in pieces["answer"]:
        raise ExportError("the chat template cannot be written as pieces of text: it changes what it is given")
    names = _special_names(text, pieces)
    split = {key: {who: _split(one, names) for who, one in found.items()} for key, found in pieces.items()}
    for messages in _conversations(pieces):
        expected = text.tokens(messages).ids.tolist()
        if messages[-1]["role"] != "assistant" and encode_pieces(text, split, messages) != expected:
            contents = [message["content"] for message in messages]
            raise ExportError(
                "the chat template cannot be written as pieces of text", [f"a conversation of {contents} differs"]
            )
    return split


def encode_pieces(text: Text, pieces: Mapping[str, Any], messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Token ids of a conversation up to the answer, as browsers compute them: the definition of the pieces."""
    run: Piece = [*pieces["first"][messages[0]["role"]]]
    for message, following in zip(messages, [*messages[1:], None], strict=True):
        run.append(message["content"])
        role = message["role"]
        run += pieces["answer"][role] if following is None else pieces["between"][f"{role}>{following['role']}"]
    ids: list[int] = []
    words = ""
    for part in [*run, None]:
        if isinstance(part, str):
            words += part
            continue
        ids += text.encode(words) if words else []
        words = ""
        if part is not None:
            ids.append(part)
    return ids


def _pieces(text: Text) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {"first": {}, "between": {}, "last": {}, "answer": {}}
    for roles in _turns():
        messages = [{"role": role, "content": _MARK} for role in roles]
        try:
            closed, opened = text.render(messages, False), text.render(messages, True)
        except Exception:  # noqa: BLE001  # a template raises what it likes about roles that it does not take
            continue
        parts, ends = closed.split(_MARK), opened.split(_MARK)
        if len(parts) != len(roles) + 1 or ends[:-1] != parts[:-1]:
            continue
        found["first"].setdefault(roles[0], parts[0])
        found["last"].setdefault(roles[-1], parts[-1])
        found["answer"].setdefault(roles[-1], ends[-1])
        for (one, other), piece in zip(pairwise(roles), parts[1:-1], strict=True):
            found["between"].setdefault(f"{one}>{other}", piece)
    return found


def _turns() -> Iterator[tuple[str, ...]]:
    for length in (1, 2, 3, 4):
        yield from product(ROLES, repeat=length)


def _special_names(text: Text, pieces: Mapping[str, Mapping[str, str]]) -> dict[str, int]:
    """Special tokens, and the other added tokens that stand in the pieces, by their text."""
    written = "".join(piece for found in pieces.values() for piece in found.values())
    added = text.tokenizer.get_added_tokens_decoder()
    return {
        token.content: number
        for number, token in added.items()
        if token.content and (token.special or token.content in written)
    }


def _split(piece: str, names: Mapping[str, int]) -> Piece:
    if not names:
        return [piece] if piece else []
    longest = sorted(names, key=len, reverse=True)
    parts = re.split("(" + "|".join(map(re.escape, longest)) + ")", piece)
    return [names.get(part, part) for part in parts if part]


def _conversations(pieces: Mapping[str, Mapping[str, str]]) -> Iterator[list[dict[str, str]]]:
    """Conversations that the pieces can write, with contents that tokenizers treat differently."""
    for roles in [
        ("user",),
        ("system", "user"),
        ("user", "assistant", "user"),
        ("system", "user", "assistant", "user"),
    ]:
        pairs = [f"{one}>{other}" for one, other in pairwise(roles)]
        if roles[0] in pieces["first"] and all(pair in pieces["between"] for pair in pairs):
            for start in range(len(_CONTENTS)):
                contents = [_CONTENTS[(start + at) % len(_CONTENTS)] for at in range(len(roles))]
                yield [{"role": role, "content": one} for role, one in zip(roles, contents, strict=True)]


def has_template(text: Text) -> bool:
    """Whether the model has a chat template at all."""
    try:
        text.tokens("x")
    except ConfigError:
        return False
    return True
