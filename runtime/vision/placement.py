"""Puts what pictures become into the token ids of a prompt, in place of their placeholders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lime_edge.contract.content_parts import MediaKind
from lime_edge.contract.vision import VisionContract
from lime_edge.errors import ConfigError

Ids = npt.NDArray[np.int64]


class Placeable(Protocol):
    """What stands in a prompt for one picture: see `Prepared`."""

    @property
    def pieces(self) -> tuple[str | int, ...]: ...
    @property
    def kind(self) -> MediaKind: ...
    @property
    def count(self) -> int: ...


class Gridded(Placeable, Protocol):
    """A picture whose features have coordinates: see `Prepared`."""

    @property
    def grid(self) -> tuple[int, int, int] | None: ...
    @property
    def interval(self) -> float: ...


@dataclass(frozen=True)
class Placement:
    """A prompt with pictures.

    Attributes:
        ids: [S] token ids; a feature has the model's image or video token.
        boundary: The given boundary, moved.
        owners: [S] the number of the picture of each feature; -1 is text.
        feature_ids: [S] the row of each feature, where the features of all pictures stand one after the other; -1 is
            text.
    """

    ids: Ids
    boundary: int
    owners: Ids
    feature_ids: Ids


def placeholders(contract: VisionContract) -> dict[str, int]:
    """The token that a chat template writes for each kind of picture that the model takes."""
    image = {"image": contract.image_token_id}
    return image | {"video": contract.video_token_id} if contract.video_token else image


def place(
    ids: Sequence[int],
    boundary: int,
    pictures: Sequence[Placeable],
    contract: VisionContract,
    encode: Callable[[str], Sequence[int]],
) -> Placement:
    """Replace each placeholder by the texts and features of its picture.

    Args:
        ids: A prompt with one placeholder for each picture.
        boundary: An index into `ids`, such as that of the answer's turn.
        pictures: In the order in which they stand in the messages; a placeholder takes the next one of its kind.
        contract: The model's.
        encode: Token ids of a text in which special tokens are special.

    Raises:
        ConfigError: There are more or fewer pictures than placeholders.
    """
    kinds: dict[int, MediaKind] = {contract.image_token_id: "image"}
    if contract.video_token:
        kinds[contract.video_token_id] = "video"
    waiting = {kind: [n for n, one in enumerate(pictures) if one.kind == kind][::-1] for kind in ("image", "video")}
    starts = np.cumsum([0, *(one.count for one in pictures)])
    made: list[int] = []
    owners: list[int] = []
    rows: list[int] = []
    moved = boundary
    for at, token in enumerate(ids):
        if at == boundary:
            moved = len(made)
        kind = kinds.get(token)
        if kind is None:
            made.append(token)
            owners.append(-1)
            rows.append(-1)
            continue
        if not waiting[kind]:
            raise ConfigError(f"the prompt has more placeholders than {kind}s")
        number = waiting[kind].pop()
        row = int(starts[number])
        for piece in pictures[number].pieces:
            written = list(encode(piece)) if isinstance(piece, str) else [token] * piece
            made += written
            if isinstance(piece, str):
                owners += [-1] * len(written)
                rows += [-1] * len(written)
            else:
                owners += [number] * piece
                rows += range(row, row + piece)
                row += piece
    if any(waiting.values()):
        raise ConfigError("the prompt has fewer placeholders than pictures")
    if boundary >= len(ids):
        moved = boundary - len(ids) + len(made)
    return Placement(np.array(made), moved, np.array(owners), np.array(rows))


def positions(placement: Placement, pictures: Sequence[Gridded]) -> tuple[Ids, int]:
    """Positions of a prompt in time, rows and columns (M-RoPE of Qwen2-VL).

    Text counts up in all three. The features of a picture have its grid's coordinates, from the position after the text
    before on; the text after continues from the largest side of the grid.

    Returns:
        Positions [3, S], and the difference between the position and the index of every later token.
    """
    owners = placement.owners
    out = np.empty((3, len(owners)), np.int64)
    at = position = 0
    while at < len(owners):
        number = int(owners[at])
        if number < 0:
            out[:, at] = position
            at, position = at + 1, position + 1
            continue
        one = pictures[number]
        grid = one.grid or (1, 1, one.count)
        times, rows, columns = np.indices(grid).reshape(3, -1)
        span = slice(at, at + len(times))
        out[:, span] = position + np.stack([(times * one.interval).astype(np.int64), rows, columns])
        at, position = span.stop, position + max(grid[1:])
    delta = int(out.max()) + 1 - len(owners) if len(owners) else 0
    return out, delta
