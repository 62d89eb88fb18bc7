"""Puts pictures into the token ids of a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lime_edge.common.strict_json import bounded
from lime_edge.contract.content_parts import MediaPart, media_parts
from lime_edge.contract.conversation import Chat
from lime_edge.contract.vision import VisionContract
from lime_edge.errors import ConfigError
from lime_edge.runtime.vision.placement import Placeable, place

Ids = npt.NDArray[np.int64]


class Picture(Placeable, Protocol):
    """A picture that can stand in a prompt."""

    @property
    def token(self) -> int:
        """The token that stands for its features in a prompt."""

    @property
    def ids(self) -> Ids:
        """The ids of its features, below zero."""


class Reader(Protocol):
    """Reads the pictures of messages."""

    @property
    def contract(self) -> VisionContract: ...
    def has_pictures(self, messages: Any) -> bool: ...
    def with_frames(self, messages: Sequence[Any]) -> list[Any]: ...
    def read(self, part: MediaPart) -> Picture: ...


def place_pictures(
    chat: Chat, messages: Any, system: str | None, reader: Reader, context: int | None
) -> tuple[Ids, int, tuple[Picture, ...]]:
    """Token ids of a conversation with pictures, the boundary, and the pictures.

    Raises:
        ConfigError: Names every invalid message, or every picture that cannot be used; or they do not fit together.
    """
    messages = reader.with_frames(messages)
    ids, boundary = chat.prompt(messages, system, continues=True)
    pictures, faults = [], []
    room = len(ids) if context is None else context - len(ids)
    for number, part in enumerate(media_parts(messages)):
        try:
            pictures.append(reader.read(part))
        except ConfigError as error:
            faults += [f"{part.kind} {number}: {fault}" for fault in error.faults or [error.message]]
            continue
        if context is not None and sum(one.count for one in pictures) > room + len(pictures):
            raise ConfigError(
                f"the first {number + 1} pictures have {sum(one.count for one in pictures):,} tokens, the context of "
                f"{context:,} tokens has room for {room + len(pictures):,}: show fewer or smaller pictures"
            )
    if faults:
        raise ConfigError("the pictures cannot be used", bounded(faults))
    placed = place(ids, boundary, pictures, reader.contract, chat.special)
    for number, picture in enumerate(pictures):
        placed.ids[placed.owners == number] = picture.ids
    return placed.ids, min(placed.boundary, len(placed.ids) - 1), tuple(pictures)
