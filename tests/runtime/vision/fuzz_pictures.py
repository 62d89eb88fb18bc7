"""Fuzzes what opens pictures and vision.json with mutated files.

    python -m tests.runtime.vision.fuzz_pictures [--pictures N] [--contracts N] [--videos N] [--seed N] [--json FILE]

Checked for every input: no exception but LimeError; a time limit (else the process ends with a traceback); what is
accepted has the promised type, shape and size, and can be prepared for a model of every family. The memory of the whole
process stays within `MEMORY` of what it was before. The first finding stops the run, and its input is kept."""

from __future__ import annotations

import faulthandler
import io
import json
import resource
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import click
import numpy as np
from PIL import Image

from lime_edge.contract.content_parts import MediaPart
from lime_edge.contract.vision import Video, VisionContract
from lime_edge.errors import LimeError
from lime_edge.runtime.vision.image_file import PIXEL_LIMIT, image_source
from lime_edge.runtime.vision.prepare import prepare_image
from lime_edge.runtime.vision.prepared import Prepared
from lime_edge.runtime.vision.video_file import video_source
from tests.runtime.vision import contracts
from tests.runtime.vision.video_files import video
from tests.support.faults.mutants import FORMS, VALUES

SECONDS = 20.0  # for one input
MEMORY = 14 * PIXEL_LIMIT  # bytes: the largest picture, decoded, over white, and as RGB
CONTRACTS = [
    *(contracts.LLAVA, contracts.LLAVA_SQUARE, contracts.LIME, contracts.ONEVISION, contracts.ONEVISION_ONE),
    *(contracts.SMOLVLM, contracts.SMOLVLM_ONE, contracts.QWEN2, contracts.QWEN2_5),
]


class FindingError(Exception):
    """A violated guarantee."""


def seeds() -> list[bytes]:
    """A small picture of every kind and mode."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (11, 17, 3), dtype=np.uint8))
    grey = Image.fromarray(rng.integers(0, 65536, (9, 8), dtype=np.uint16))
    clear = Image.fromarray(rng.integers(0, 256, (8, 9, 4), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    more: dict[str, Any] = {"save_all": True, "append_images": [colour.rotate(90), colour]}
    return [
        *(_saved(colour, kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")),
        *(_saved(colour, kind, **more) for kind in ("GIF", "WEBP", "TIFF", "PNG")),
        *(_saved(clear, kind) for kind in ("PNG", "WEBP", "TIFF")),
        *(_saved(grey, kind) for kind in ("PNG", "TIFF")),
        *(_saved(colour, kind, exif=exif) for kind in ("PNG", "JPEG", "WEBP")),
        *(_saved(colour, "TIFF", compression=kind) for kind in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
        _saved(colour.convert("CMYK"), "JPEG"),
        _saved(colour.convert("1"), "PNG"),
        _saved(colour.quantize(8), "PNG", transparency=1),
        _saved(colour, "JPEG", progressive=True),
        _saved(colour, "WEBP", lossless=True),
    ]


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def mutated(random: Random, data: bytes) -> bytes:
    """One to four edits: bits, bytes, numbers of 2 and 4 bytes, cuts, copies; sums of PNG chunks are repaired."""
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(found)) if random.random() < 0.6 else random.randrange(min(64, len(found)))
        edit = random.randrange(6)
        if edit == 0:
            found[at] ^= 1 << random.randrange(8)
        elif edit == 1:
            found[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif edit == 2:
            number = random.choice((0, 1, 255, 256, 4096, 8191, 30000, 65535, 2**16, 2**24, 2**31 - 1, 2**32 - 1))
            width = random.choice((2, 4))
            coded = (number % 256**width).to_bytes(width, random.choice(("big", "little")))
            found[at : at + width] = coded
        elif edit == 3:
            del found[at : at + random.randrange(1, 40)]
        elif edit == 4:
            found[at:at] = found[at : at + random.randrange(1, 40)]
        else:
            del found[at + 1 :]
        if not found:
            return b"\0"
    return _checked(bytes(found)) if random.random() < 0.8 else bytes(found)


def _checked(data: bytes) -> bytes:
    """A PNG with the right sum in every chunk; other files as they are."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    made, at = data[:8], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + size > len(data):
            break
        body = data[at + 4 : at + 8 + size]
        made += data[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        at += 12 + size
    return made + data[at:]


def mutated_json(random: Random, data: str) -> str:
    """A contract with one to three other values, missing or unknown keys, or broken text."""
    document = json.loads(data)
    for _ in range(random.choice((1, 1, 2, 3))):
        target: Any = document
        while isinstance(target, dict) and target:
            key = random.choice(list(target))
            if isinstance(target[key], dict) and random.random() < 0.8:
                target = target[key]
                continue
            edit = random.random()
            if edit < 0.1:
                del target[key]
            elif edit < 0.15:
                target["unknown"] = 1
            elif edit < 0.5 and isinstance(target[key], int | float) and not isinstance(target[key], bool):
                target[key] = target[key] * random.choice((0, 2, 3, 8, 64, -1)) + random.choice((0, 0, 1, -1))
            else:
                target[key] = random.choice(VALUES)
            break
    text = json.dumps(document)
    if random.random() < 0.1:
        at = random.randrange(len(text))
        text = text[:at] + random.choice(FORMS) + text[at + random.randrange(3) :]
    return text[: random.randrange(len(text))] if random.random() < 0.02 else text


def try_picture(random: Random, data: bytes) -> None:
    """Open a file; prepare it for one model if it is a picture."""
    pixels = image_source(MediaPart("image", "bytes", data)).pixels()
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size > 3 * PIXEL_LIMIT:
        raise FindingError(f"pixels are {pixels.dtype} {pixels.shape}")
    check_prepared(prepare_image(pixels, random.choice(CONTRACTS)))


def try_contract(random: Random, data: bytes) -> None:
    """Parse a contract; prepare a picture with it if it is valid."""
    contract = VisionContract.from_json(data)
    size = random.choice(((9, 12, 3), (1, 150, 3), (200, 2, 3)))
    check_prepared(prepare_image(np.zeros(size, np.uint8), contract))


def try_video(random: Random, data: bytes) -> None:
    """Open a video; its frames have one size."""
    clip = video_source(MediaPart("video", "bytes", data)).clip(VIDEO)
    if len({frame.shape for frame in clip.frames}) != 1 or not 1 <= len(clip.frames) <= 6:
        raise FindingError(f"{len(clip.frames)} frames {[frame.shape for frame in clip.frames]}")


VIDEO = contracts.contract("lime_vision", tiles=contracts.LIME.tiles, video=Video(6))


def check_prepared(made: Prepared) -> None:
    values = made.arrays["pixel_values"]
    if values.dtype != np.float32 or made.count < 1 or not np.isfinite(values).all():
        raise FindingError(f"prepared are {values.dtype} {values.shape}, {made.count} features")


class Run:
    """Tries inputs one after another and counts what came of them."""

    def __init__(self, seed: int) -> None:
        self.random, self.seed, self.refused = Random(seed), seed, Counter[str]()
        self.inputs = self.taken = 0
        self.slowest, self.before = 0.0, _peak()

    def one(self, attempt: Callable[[Random, bytes], None], data: bytes) -> None:
        """Try one input.

        Raises:
            FindingError: A guarantee does not hold; the input is in the message's file.
        """
        started = time.perf_counter()
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            attempt(self.random, data)
            self.taken += 1
        except LimeError as error:
            self.refused[type(error).__name__] += 1
        except Exception as error:
            raise FindingError(f"{_kept(data)}: {type(error).__name__}: {error}") from error
        finally:
            faulthandler.cancel_dump_traceback_later()
        self.inputs += 1
        self.slowest = max(self.slowest, time.perf_counter() - started)
        if _peak() - self.before > MEMORY:
            raise FindingError(f"{_kept(data)}: {_peak() - self.before:,} bytes; expected at most {MEMORY:,}")

    def report(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "inputs": self.inputs,
            "taken": self.taken,
            "refused": dict(self.refused),
            "slowest seconds": round(self.slowest, 2),
            "memory bytes": _peak() - self.before,
        }


def fuzz(pictures: int, json_files: int, videos: int, seed: int) -> dict[str, Any]:
    """Try so many mutants of each kind; returns the counts."""
    warnings.simplefilter("ignore")  # Pillow warns of what it then refuses
    run = Run(seed)
    files = seeds()
    for _ in range(pictures):
        run.one(try_picture, mutated(run.random, run.random.choice(files)))
    texts = [one.to_json() for one in CONTRACTS]
    for _ in range(json_files):
        run.one(try_contract, mutated_json(run.random, run.random.choice(texts)).encode())
    clips = [video(12), video(12, kind="matroska"), video(12, kind="avi", codec="mjpeg")] if videos else []
    for _ in range(videos):
        run.one(try_video, mutated(run.random, run.random.choice(clips)))
    return run.report()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _kept(data: bytes) -> Path:
    path = Path(f"finding-{zlib.crc32(data):08x}.bin")
    path.write_bytes(data)
    return path.absolute()


@click.command()
@click.option("--pictures", default=20_000, show_default=True)
@click.option("--contracts", "json_files", default=20_000, show_default=True)
@click.option("--videos", default=200, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "target", type=click.Path(path_type=Path))
def main(pictures: int, json_files: int, videos: int, seed: int, target: Path | None) -> None:
    """Run and print the counts."""
    found = json.dumps(fuzz(pictures, json_files, videos, seed), indent=2)
    click.echo(found)
    if target is not None:
        target.write_text(found + "\n", "utf-8")


if __name__ == "__main__":
    main()
