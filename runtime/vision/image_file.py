"""Opens pictures: untrusted files, bytes, PIL images and arrays, as RGB pixels within bounds.

What is read is what a viewer shows: turned as EXIF says, transparency over white, the first picture of an animation.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.common.extras import require_extra
from lime_edge.common.files import read_bounded, reason
from lime_edge.common.strict_json import show
from lime_edge.contract.content_parts import MediaPart
from lime_edge.errors import ConfigError

Pixels = npt.NDArray[np.uint8]

FILE_LIMIT = 2**27  # bytes
PIXEL_LIMIT = 2**26  # width * height; decoding takes up to 12 bytes for each
SIDES_LIMIT = 200  # the longer side divided by the shorter one
#: Decoders that may see an untrusted file. Others run programs (EPS), or are hardly ever used.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

_ORIENTATION = 0x0112  # EXIF tag
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")


@dataclass(frozen=True)
class ImageSource:
    """A picture that is decoded when its pixels are needed.

    Attributes:
        name: What messages call it.
        digest: SHA-256 of the file's bytes, or of the pixels of an object. Equal digests are equal pictures.
    """

    name: str
    digest: str
    _decode: Callable[[], Pixels] = field(repr=False, compare=False)

    def pixels(self) -> Pixels:
        """The picture, [H, W, 3].

        Raises:
            ConfigError: It is not a picture, damaged, or too large.
            MissingExtraError: Pillow is not installed.
        """
        return self._decode()


def image_source(part: MediaPart, name: str = "") -> ImageSource:
    """A picture from a part of a message.

    Args:
        part: An image.
        name: What messages call it; by default its path, or "the picture".

    Raises:
        ConfigError: The file cannot be read, or the object is no picture.
    """
    if part.form == "path":
        name = name or show(part.value)
        data = read_file(part.value, FILE_LIMIT, name)
        return _of_bytes(data, name)
    name = name or "the picture"
    if part.form == "bytes":
        if len(part.value) > FILE_LIMIT:
            raise ConfigError(f"{name} has {len(part.value):,} bytes; expected at most {FILE_LIMIT:,}")
        return _of_bytes(part.value, name)
    return _of_pixels(_object_pixels(part.value, name), name)


def read_file(path: str, limit: int, name: str) -> bytes:
    """The bytes of a regular file.

    Raises:
        ConfigError: It is missing, no regular file, or longer than the limit.
    """
    try:
        data = read_bounded(path, limit)
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {reason(error)}") from error
    except ValueError as error:
        raise ConfigError(
            f"{name} is not a file that can be used: {error}; expected at most {limit:,} bytes"
        ) from error
    if not data:
        raise ConfigError(f"{name} has 0 bytes; expected 1 to {limit:,}")
    return data


def checked_pixels(pixels: Any, name: str) -> Pixels:
    """An array as a picture [H, W, 3].

    Raises:
        ConfigError: Another type or shape, or too many pixels.
    """
    if not isinstance(pixels, np.ndarray):
        raise ConfigError(f"{name} is {type(pixels).__name__}; expected a path, bytes, a PIL image or a numpy array")
    fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4))
    if pixels.dtype != np.uint8 or not fits:
        raise ConfigError(
            f"{name} is an array {list(pixels.shape)} of {pixels.dtype}; expected uint8 [H, W], or [H, W, C] with "
            "1, 3 or 4 channels"
        )
    _check_size(pixels.shape[1], pixels.shape[0], name)
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        return np.ascontiguousarray(pixels)
    with require_extra("vision"):
        from PIL import Image
    flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    return _rgb(Image.fromarray(np.ascontiguousarray(flat)), name)


def _of_bytes(data: bytes, name: str) -> ImageSource:
    return ImageSource(name, hashlib.sha256(b"file\0" + data).hexdigest(), lambda: _decoded(data, name))


def _of_pixels(pixels: Pixels, name: str) -> ImageSource:
    mark = f"pixels\0{pixels.shape}\0".encode()
    return ImageSource(name, hashlib.sha256(mark + pixels.tobytes()).hexdigest(), lambda: pixels)


def _object_pixels(value: Any, name: str) -> Pixels:
    if isinstance(value, np.ndarray):
        return checked_pixels(value, name).copy()  # the caller may change the array
    with require_extra("vision"):
        from PIL import Image
    if not isinstance(value, Image.Image):
        return checked_pixels(value, name)  # says what is expected
    _check_size(*value.size, name)
    return _guarded(lambda: _rgb(value, name), name)


def _decoded(data: bytes, name: str) -> Pixels:
    with require_extra("vision"):
        from PIL import Image

    def decode() -> Pixels:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(*image.size, name)
            image.load()
            _check_size(*image.size, name)
            return _rgb(image, name)

    return _guarded(decode, name)


def _guarded(decode: Callable[[], Pixels], name: str) -> Pixels:
    """Pixels from a decoder; on a damaged file Pillow raises errors of many kinds."""
    try:
        return decode()
    except ConfigError:
        raise
    except MemoryError as error:
        raise ConfigError(f"{name} does not fit into memory") from error
    except Exception as error:  # decoders raise what they like
        known = f"expected one of {', '.join(FORMATS)}, not damaged"
        reason = type(error).__name__ if "BytesIO" in str(error) else f"{type(error).__name__}: {show(str(error))}"
        raise ConfigError(f"{name} is no picture that can be read ({reason}); {known}") from error


def _check_size(width: int, height: int, name: str) -> None:
    found = f"{name} has {width:,} x {height:,} pixels"
    if min(width, height) < 1 or width * height > PIXEL_LIMIT:
        raise ConfigError(f"{found}; expected 1 to {PIXEL_LIMIT:,} in all: scale it down")
    if max(width, height) > SIDES_LIMIT * min(width, height):
        raise ConfigError(f"{found}; expected sides of which one is at most {SIDES_LIMIT} times the other")


def _rgb(image: Any, name: str) -> Pixels:
    """The pixels of a PIL image, upright, without transparency."""
    from PIL import Image

    if image.mode == "F":
        raise ConfigError(f"{name} has floating-point pixels of unknown range; expected 8 or 16 bits a channel")
    turned = _turned(image)
    if image.mode in _SIXTEEN_BITS:
        values = np.asarray(turned).astype(np.int64).clip(0, 65535)
        eight = ((values * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(eight[..., None], 3, axis=-1)
    if "A" in turned.getbands() or "a" in turned.getbands() or image.info.get("transparency") is not None:
        over = turned.convert("RGBA")
        white = Image.new("RGBA", over.size, (255, 255, 255, 255))
        turned = Image.alpha_composite(white, over)
    return np.array(turned.convert("RGB"))


def _turned(image: Any) -> Any:
    """The image as its EXIF orientation says; as it is if that cannot be read."""
    from PIL import Image

    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001  # damaged EXIF does not damage the picture
        return image
    moves = Image.Transpose
    turns = {
        2: moves.FLIP_LEFT_RIGHT,
        3: moves.ROTATE_180,
        4: moves.FLIP_TOP_BOTTOM,
        5: moves.TRANSPOSE,
        6: moves.ROTATE_270,
        7: moves.TRANSVERSE,
        8: moves.ROTATE_90,
    }
    turn = turns.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)
