"""Files of every kind become what a viewer shows; what cannot be read is refused by name, within bounds."""

from __future__ import annotations

import io
import os
import re
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from lime_edge.contract.content_parts import MediaPart
from lime_edge.errors import ConfigError, MissingExtraError
from lime_edge.runtime.vision import image_file
from lime_edge.runtime.vision.image_file import ImageSource, checked_pixels, image_source

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def source(value: Any, form: Any = "bytes") -> ImageSource:
    return image_source(MediaPart("image", form, value))


def pixels(value: Any, form: Any = "bytes") -> npt.NDArray[np.uint8]:
    return source(value, form).pixels()


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "GIF"])
def test_kinds_that_lose_nothing(kind: str) -> None:
    image = Image.fromarray(RGB)
    if kind == "GIF":
        image = image.quantize(35)
    np.testing.assert_array_equal(
        pixels(saved(image, kind, **({"lossless": True} if kind == "WEBP" else {}))), np.array(image.convert("RGB"))
    )


def test_jpeg_of_grey_colour_and_print() -> None:
    for mode in ("RGB", "L", "CMYK"):
        data = saved(Image.fromarray(RGB).convert(mode), "JPEG", quality=95)
        with Image.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(pixels(data), np.array(image.convert("RGB")))


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].swapaxes(0, 1)),
        (8, lambda a: np.rot90(a)),
        (77, lambda a: a),
    ],
)
def test_exif_orientation(orientation: int, upright: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(RGB), "PNG", exif=exif)
    np.testing.assert_array_equal(pixels(data), upright(RGB))


def test_damaged_exif_does_not_damage_the_picture() -> None:
    data = saved(Image.fromarray(RGB), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(pixels(data), RGB)


def test_transparency_is_over_white() -> None:
    for alpha, expected in ((0, 255), (255, 10), (128, round(10 * 128 / 255 + 255 * 127 / 255))):
        rgba = np.full((2, 2, 4), 10, np.uint8)
        rgba[..., 3] = alpha
        found = pixels(saved(Image.fromarray(rgba), "PNG"))
        assert abs(found.astype(int) - expected).max() <= 1
        np.testing.assert_array_equal(pixels(rgba, "object"), found)
    palette = Image.fromarray(np.zeros((2, 2), np.uint8)).convert("P")
    assert (pixels(saved(palette, "GIF", transparency=0)) == 255).all()


def test_sixteen_bits_a_channel() -> None:
    grey = np.array([[0, 257, 65535], [128, 129, 25700]], np.uint16)
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(pixels(saved(Image.fromarray(grey), kind))[..., 0], [[0, 1, 255], [0, 1, 100]])


def test_of_an_animation_the_first_picture() -> None:
    frames = [Image.fromarray(np.full((4, 4, 3), value, np.uint8)) for value in (0, 255)]
    for kind in ("GIF", "WEBP"):
        assert (pixels(saved(frames[0], kind, save_all=True, append_images=frames[1:])) == 0).all()


def test_objects() -> None:
    np.testing.assert_array_equal(pixels(Image.fromarray(RGB), "object"), RGB)
    np.testing.assert_array_equal(pixels(RGB, "object"), RGB)
    np.testing.assert_array_equal(pixels(RGB[..., :1], "object"), np.repeat(RGB[..., :1], 3, -1))
    np.testing.assert_array_equal(pixels(RGB[..., 0], "object"), np.repeat(RGB[..., :1], 3, -1))
    lazy = Image.open(io.BytesIO(saved(Image.fromarray(RGB), "PNG")))
    np.testing.assert_array_equal(pixels(lazy, "object"), RGB)


def test_an_array_that_changes_later_does_not_change_the_picture() -> None:
    array = RGB.copy()
    one = source(array, "object")
    array[...] = 0
    np.testing.assert_array_equal(one.pixels(), RGB)


def test_digests_tell_pictures_apart(tmp_path: Path) -> None:
    data = saved(Image.fromarray(RGB), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    assert source(data).digest == source(str(tmp_path / "a.png"), "path").digest
    assert source(RGB, "object").digest == source(Image.fromarray(RGB), "object").digest
    others = [RGB.reshape(7, 5, 3), RGB[:4], RGB ^ 1]
    digests = {source(one, "object").digest for one in [RGB, *others]} | {
        source(data).digest,
        source(data + b" ").digest,
    }
    assert len(digests) == 6


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has any size."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(8193, 8193), (60000, 60000), (2**30, 2**30), (10000, 10), (0, 5)])
def test_bombs_are_refused_before_they_are_decoded(width: int, height: int) -> None:
    with pytest.raises(ConfigError, match=r"the picture (has|is no picture)"):
        pixels(png_of(width, height))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "has 0 bytes"),
        (b"GIF89a", "is no picture that can be read"),
        (b"not a picture", "expected one of JPEG, PNG"),
        (saved(Image.fromarray(RGB), "PNG")[:-30], "is no picture that can be read"),
        (saved(Image.fromarray(RGB), "JPEG")[:200], "is no picture that can be read"),
        (saved(Image.fromarray(RGB), "ICO"), "is no picture that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no picture that can be read"),
        (saved(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), "floating-point pixels"),
    ],
)
def test_files_that_are_refused(data: bytes, fault: str, tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=fault) as caught:
        pixels(str(file), "path")
    assert "x.png" in caught.value.message


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (object(), "is object; expected a path, bytes, a PIL image or a numpy array"),
        (np.zeros((2, 2, 3), np.float32), r"is an array \[2, 2, 3\] of float32; expected uint8"),
        (np.zeros((3, 2, 2), np.uint8), r"expected uint8 \[H, W\]"),
        (np.zeros((2, 2, 2, 3), np.uint8), r"expected uint8 \[H, W\]"),
        (np.zeros((0, 2, 3), np.uint8), "has 2 x 0 pixels"),
        (np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (9000, 9000, 3)), "has 9,000 x 9,000 pixels"),
        (Image.new("L", (9000, 9000)), "has 9,000 x 9,000 pixels"),
    ],
)
def test_objects_that_are_refused(value: Any, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        source(value, "object")


def test_only_regular_files_within_bounds_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, fault in (
        (tmp_path / "none.png", "No such file"),
        (tmp_path, "directory|not a file"),
        (fifo, "not a file"),
    ):
        with pytest.raises(ConfigError, match=fault):
            source(str(path), "path")
    file = tmp_path / "a.png"
    file.write_bytes(saved(Image.fromarray(RGB), "PNG"))
    monkeypatch.setattr(image_file, "FILE_LIMIT", 50)
    with pytest.raises(ConfigError, match="has more than 50 bytes"):
        source(str(file), "path")
    with pytest.raises(ConfigError, match="expected at most 50"):
        source(file.read_bytes())


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(Image.fromarray(RGB), "PNG")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'lime-edge[vision]'")):
        pixels(data)
    assert checked_pixels(RGB, "x").shape == RGB.shape  # an array needs no decoder
