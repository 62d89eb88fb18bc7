"""`VisionContract`: the content of vision.json, how pictures become inputs of vision.onnx and tokens of a prompt.

Written by the exporter from the settings of a checkpoint; the runtime and training prepare pictures from it alone.
Normative page: docs/model-format.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lime_edge.common.strict_json import Check, bounded, flag, load_json, number, one_of, record, sequence, show, text
from lime_edge.common.strict_json import whole as whole_number
from lime_edge.errors import ModelError

from .names import VISION_JSON

VISION_FORMAT = 1
BYTES_LIMIT = 2**16  # of vision.json
SIDE_LIMIT = 4096  # pixels of a tile's side, and of a picture's side after it was resized for tiling
TILE_LIMIT = 64  # tiles of one picture
TOKEN_LIMIT = 2**14  # features of one tile, and of one picture in patches
FRAME_LIMIT = 768  # frames of one video

#: `smolvlm` is also Idefics3 and SmolVLM2.
Family = Literal["llava", "llava_onevision", "smolvlm", "qwen2_vl", "qwen2_5_vl", "lime_vision"]
Resample = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]

PATCH_FAMILIES: tuple[Family, ...] = ("qwen2_vl", "qwen2_5_vl")  # pictures of any size; the others cut them into tiles


@dataclass(frozen=True)
class Pixels:
    """How the pixels of an RGB picture become numbers: (x * rescale - mean) / std, by channel."""

    resample: Resample  # filter of every resizing, as in Pillow
    rescale: float  # usually 1 / 255
    mean: tuple[float, float, float]  # after rescaling
    std: tuple[float, float, float]  # > 0


@dataclass(frozen=True)
class Tiles:
    """How a picture is cut into tiles of one size.

    A picture is resized to one tile. If `grid` or `longest_edge` is given, the tiles of an enlarged picture are added,
    as the family's processor of transformers does: before them stands the whole picture with `grid`
    (LLaVA-OneVision), after them with `longest_edge` (SmolVLM).
    """

    height: int  # pixels
    width: int
    patch: int  # pixels of a patch's side
    tokens: int  # features of a tile
    limit: int = 1  # most tiles of a picture, the whole picture included
    shortest_edge: int = 0  # resize the shortest edge to so many pixels and crop the centre; 0: resize to the tile
    square: bool = False  # first pad to a square in the mean colour
    grid: tuple[tuple[int, int], ...] = ()  # (height, width) in pixels of the possible enlarged pictures
    grid_tiles: int = 9  # with `grid`: enlarged pictures of more tiles are scaled down to the features of so many
    longest_edge: int = 0  # pixels of the longest edge of the enlarged picture

    @property
    def grid_side(self) -> int:
        """Patches along a tile's side (tiles of families with `grid` are square)."""
        return self.height // self.patch


@dataclass(frozen=True)
class Patches:
    """How a picture of any size is cut into patches (Qwen2-VL). Both sides become multiples of patch * merge."""

    patch: int  # pixels of a patch's side
    merge: int  # merge * merge patches become one feature
    temporal: int  # frames of a patch; a picture is repeated so often
    least_pixels: int
    most_pixels: int
    window: int = 0  # pixels of the side of an attention window (Qwen2.5-VL); 0: none


@dataclass(frozen=True)
class Marks:
    """Special tokens written around and between the tiles of a picture (SmolVLM)."""

    around: str  # before every tile, and after the last
    tile: str  # with the fields {row} and {column}, both from 1
    whole: str  # before the features of the whole picture


@dataclass(frozen=True)
class Video:
    """How a video becomes frames."""

    frames: int  # most frames
    fps: float = 0.0  # frames taken a second; 0: `frames` frames, evenly spaced
    least_frames: int = 1
    longest_edge: int = 0  # frames are first resized to this longest edge, then to a tile (SmolVLM); 0: to a tile
    least_pixels: int = 0  # of a frame (Qwen2-VL)
    most_pixels: int = 0
    tokens_per_second: float = 0.0  # positions of a second of video (Qwen2.5-VL); 0: one position for `temporal` frames


@dataclass(frozen=True)
class VisionContract:
    """The content of ``vision.json`` in an exported model directory."""

    family: Family
    features: int  # H, the width of a feature, which is that of the decoder's embeddings
    image_token: str  # special token that stands for a picture in a chat template, and for each of its features
    image_token_id: int
    pixels: Pixels
    tiles: Tiles | None = None  # exactly one of `tiles` and `patches`
    patches: Patches | None = None
    marks: Marks | None = None
    video: Video | None = None  # None: the model takes no videos
    video_token: str = ""  # "" if frames stand in a prompt like pictures, with `image_token`
    video_token_id: int = -1

    @property
    def rotary_3d(self) -> bool:
        """Whether the decoder takes positions [3, B, S]: time, row and column."""
        return self.family in PATCH_FAMILIES

    def faults(self) -> list[str]:
        """Everything that is out of range or contradicts itself."""
        return [*_CHECK("vision", json.loads(self._json()))] or [*_contradictions(self)]

    def to_json(self) -> str:
        return self._json() + "\n"

    def _json(self) -> str:
        return json.dumps({"format": VISION_FORMAT, **asdict(self)}, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, data: str | bytes) -> VisionContract:
        """Parse and validate vision.json.

        Raises:
            ModelError: Not JSON, too long, another format version, or values out of range; names every fault.
        """
        if len(data) > BYTES_LIMIT:
            raise ModelError(f"vision.json has more than {BYTES_LIMIT} bytes: export again")
        try:
            document = load_json(data)
        except ValueError as error:
            raise ModelError(f"vision.json cannot be read: {error}; export again") from error
        version = document.get("format") if isinstance(document, dict) else None
        if version != VISION_FORMAT or isinstance(version, bool):
            raise ModelError(
                f"vision.json has format {show(version)}; this version reads {VISION_FORMAT}: export again"
            )
        faults = [*_CHECK("vision.json", document)]
        if faults:
            raise ModelError("vision.json cannot be used: export again", bounded(faults))
        contract = cls(**_values(document))
        if faults := [*_contradictions(contract)]:
            raise ModelError("vision.json contradicts itself: export again", bounded(faults))
        return contract


def read_vision(directory: Path) -> VisionContract:
    """Read vision.json from a model directory.

    Raises:
        ModelError: The file is missing, unreadable or invalid.
    """
    try:
        with (directory / VISION_JSON).open("rb") as file:
            data = file.read(BYTES_LIMIT + 1)
    except OSError as error:
        raise ModelError(f"{directory / VISION_JSON} cannot be read: {error.strerror or error}") from error
    return VisionContract.from_json(data)


def _values(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a contract from a document that passed `_CHECK`."""
    values = {key: value for key, value in document.items() if key != "format"}
    parts = {"pixels": Pixels, "tiles": Tiles, "patches": Patches, "marks": Marks, "video": Video}
    for name, kind in parts.items():
        if values.get(name) is not None:
            fields = {key: _tuple(value) for key, value in values[name].items()}
            values[name] = kind(**fields)
    return values


def _tuple(value: Any) -> Any:
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value


def _contradictions(contract: VisionContract) -> Iterator[str]:
    """Values that each are in range, but not together."""
    wanted, other = ("patches", "tiles") if contract.family in PATCH_FAMILIES else ("tiles", "patches")
    if getattr(contract, wanted) is None or getattr(contract, other) is not None:
        yield f"family {contract.family} needs {wanted} and no {other}"
    if (contract.family == "smolvlm") != (contract.marks is not None):
        yield f"family {contract.family} with{'out' if contract.marks is None else ''} marks; only smolvlm has them"
    if (contract.video_token == "") != (contract.video_token_id == -1):
        yield f"video_token is {show(contract.video_token)}, video_token_id is {contract.video_token_id}"
    if contract.tiles is not None:
        yield from _tile_contradictions(contract.family, contract.tiles)
    if contract.patches is not None:
        yield from _patch_contradictions(contract.family, contract.patches, contract.video)
    if contract.marks is not None:
        try:
            contract.marks.tile.format(row=1, column=1)
        except (LookupError, ValueError, AttributeError, TypeError):
            yield f"marks.tile is {show(contract.marks.tile)}; expected text with the fields {{row}} and {{column}}"


def _tile_contradictions(family: Family, tiles: Tiles) -> Iterator[str]:
    size = (tiles.height, tiles.width)
    if tiles.shortest_edge and tiles.shortest_edge < max(size):
        yield f"tiles.shortest_edge is {tiles.shortest_edge}; expected 0, or at least the tile's {max(size)}"
    if tiles.grid and family != "llava_onevision":
        yield f"family {family} has no tiles.grid"
    if tiles.longest_edge and family != "smolvlm":
        yield f"family {family} has no tiles.longest_edge"
    for height, width in tiles.grid:
        count = (height // tiles.height) * (width // tiles.width) + 1
        if height % tiles.height or width % tiles.width or count > tiles.limit:
            yield f"tiles.grid has {height} x {width}; expected multiples of {size} and at most {tiles.limit} tiles"
    if family in ("smolvlm", "llava_onevision") and tiles.height != tiles.width:
        yield f"tiles are {size}; expected squares"
    if family == "llava_onevision" and tiles.tokens != tiles.grid_side**2:
        yield f"tiles.tokens is {tiles.tokens}; expected {tiles.grid_side**2}, one for each patch"
    side = -(-tiles.longest_edge // tiles.height)
    if tiles.longest_edge and side**2 + 1 > tiles.limit:
        yield f"tiles.longest_edge is {tiles.longest_edge}: {side**2 + 1} tiles, above the limit of {tiles.limit}"
    if not tiles.grid and not tiles.longest_edge and tiles.limit != 1:
        yield f"tiles.limit is {tiles.limit}; expected 1 for a picture of one tile"


def _patch_contradictions(family: Family, patches: Patches, video: Video | None) -> Iterator[str]:
    unit = (patches.patch * patches.merge) ** 2  # pixels of a feature
    limits = {"patches": (patches.least_pixels, patches.most_pixels)}
    if video is not None:
        limits["video"] = (video.least_pixels, video.most_pixels)
    for name, (least, most) in limits.items():
        if not unit <= most <= unit * TOKEN_LIMIT or not 1 <= least <= most:
            yield (
                f"{name}.least_pixels is {least} and {name}.most_pixels {most}; expected 1 to {unit * TOKEN_LIMIT}, "
                f"in that order, and at least {unit} for most_pixels"
            )
    if (family == "qwen2_5_vl") != (patches.window > 0):
        yield f"family {family} has patches.window {patches.window}"
    if patches.window and patches.window < patches.patch * patches.merge:
        yield f"patches.window is {patches.window}; expected at least {patches.patch * patches.merge}"


def _optional(check: Check) -> Check:
    """A check that also lets null pass."""

    def checked(where: str, value: Any) -> Iterator[str]:
        if value is not None:
            yield from check(where, value)

    return checked


_SIDE = whole_number(1, SIDE_LIMIT)
_EDGE = whole_number(0, SIDE_LIMIT)
_COUNT = whole_number(0, 2**31)
_TOKEN = text(64, least=1)
_CHANNELS = sequence(number(-1e3, 1e3), 3, least=3)
_PAIR = sequence(_SIDE, 2, least=2)
_CHECK = record(
    {
        "format": whole_number(VISION_FORMAT, VISION_FORMAT),
        "family": one_of(*get_args(Family)),
        "features": whole_number(1, 2**16),
        "image_token": _TOKEN,
        "image_token_id": _COUNT,
        "pixels": record(
            {
                "resample": one_of(*get_args(Resample)),
                "rescale": number(1e-6, 1e3),
                "mean": _CHANNELS,
                "std": sequence(number(1e-6, 1e3), 3, least=3),
            }
        ),
        "tiles": _optional(
            record(
                {
                    "height": _SIDE,
                    "width": _SIDE,
                    "patch": _SIDE,
                    "tokens": whole_number(1, TOKEN_LIMIT),
                    "limit": whole_number(1, TILE_LIMIT),
                    "shortest_edge": _EDGE,
                    "square": flag,
                    "grid": sequence(_PAIR, 256),
                    "grid_tiles": whole_number(1, TILE_LIMIT),
                    "longest_edge": _EDGE,
                }
            )
        ),
        "patches": _optional(
            record(
                {
                    "patch": whole_number(1, 128),
                    "merge": whole_number(1, 16),
                    "temporal": whole_number(1, 16),
                    "least_pixels": _COUNT,
                    "most_pixels": _COUNT,
                    "window": _EDGE,
                }
            )
        ),
        "marks": _optional(record({"around": _TOKEN, "tile": _TOKEN, "whole": _TOKEN})),
        "video": _optional(
            record(
                {
                    "frames": whole_number(1, FRAME_LIMIT),
                    "fps": number(0, 240),
                    "least_frames": whole_number(1, FRAME_LIMIT),
                    "longest_edge": _EDGE,
                    "least_pixels": _COUNT,
                    "most_pixels": _COUNT,
                    "tokens_per_second": number(0, 1000),
                }
            )
        ),
        "video_token": text(64),
        "video_token_id": whole_number(-1, 2**31),
    }
)
