"""What a picture costs: from its file to the first token, ours and transformers; then with a second skill.

    python -m benchmarks.speed.picture EXPORTED BACKBONE SKILL SKILL [--rounds 20] [--threads 2] [--json FILE]

EXPORTED is a model of the family `lime_vision`, BACKBONE the transformers model that it was exported from. Both read
JPEG files, new in every round, with the same preparation, which is ours (that family has no processor in transformers),
and give the first token of an answer to the same tokens. transformers runs in fp32 in this process, with as many
threads. "Second skill" asks the same about the same picture with another skill. The parts are timed in the same rounds.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from benchmarks.harness.rounds import Report, Variant, measure
from lime_edge import Runtime
from lime_edge.contract.content_parts import MediaPart
from lime_edge.contract.vision import read_vision
from lime_edge.runtime.vision.image_file import image_source
from lime_edge.runtime.vision.prepare import prepare_image
from lime_edge.runtime.vision.prepared import Prepared

from .command import threads as counted

_SIDES = (480, 640)  # pixels of a picture
_QUESTION = "What is in the picture?"
_OURS, _TORCH, _SECOND = "lime-edge, skill", "transformers fp32, base", "lime-edge, second skill on the picture"
_OPEN, _TOWER = "of it: open and prepare", "of it: tower"


@click.command()
@click.argument("exported", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("backbone", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("skills", type=click.Path(exists=True, dir_okay=False, path_type=Path), nargs=2)
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(1))
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1))
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Also write the results to this JSON file.")
def main(
    exported: Path, backbone: Path, skills: tuple[Path, Path], rounds: int, threads: int, json_path: Path | None
) -> None:
    """Measure a picture's way to the first token."""
    sides = Sides(exported, backbone, skills, threads)
    report = Report("picture", {"rounds": rounds, "threads": threads, "pixels": f"{_SIDES[1]} x {_SIDES[0]}"})
    variants = [
        Variant(_TORCH, sides.torch),
        Variant(_OURS, sides.ours, (_TORCH,)),
        Variant(_SECOND, sides.second, (_OURS,)),
        Variant(_OPEN, sides.opened, (_OURS,)),
        Variant(_TOWER, sides.tower, (_OURS,)),
    ]
    report.add(measure(f"a picture to the first token, {counted(threads)}", variants, rounds, warm=2))
    report.write(json_path)


class Sides:
    """The exported model with two skills, and the model that it was exported from."""

    def __init__(self, exported: Path, backbone: Path, skills: tuple[Path, Path], threads: int) -> None:
        self.runtime = Runtime.load(exported, threads=threads)
        self.names = [self.runtime.load_skill(path, f"skill {number}").name for number, path in enumerate(skills)]
        self.contract = read_vision(exported)
        self._run = _torch_model(backbone, threads)
        self._files = _files()

    def ours(self) -> float:
        """A new picture, asked about with the first skill."""
        return self._ask(next(self._files), self.names[0])

    def second(self) -> float:
        """A picture that the first skill was asked about, asked about with the second skill."""
        data = next(self._files)
        self._ask(data, self.names[0])
        return self._ask(data, self.names[1])

    def torch(self) -> float:
        """A new picture, read by transformers: the same tokens."""
        data = next(self._files)
        tokens = self.runtime.tokenize(self._messages(data))
        began = time.perf_counter()
        prepared = self._prepared(data)
        self._run(np.array([tokens]), prepared.arrays["pixel_values"])
        return time.perf_counter() - began

    def opened(self) -> float:
        """Opening and preparing a picture."""
        data = next(self._files)
        began = time.perf_counter()
        self._prepared(data)
        return time.perf_counter() - began

    def tower(self) -> float:
        """The vision graph alone."""
        prepared = self._prepared(next(self._files))
        reader: Any = self.runtime._text.reader
        began = time.perf_counter()
        reader._graph.run(prepared.arrays)
        return time.perf_counter() - began

    def _ask(self, data: bytes, skill: str) -> float:
        messages = self._messages(data)
        began = time.perf_counter()
        self.runtime.generate(messages, skill, max_new_tokens=1)
        return time.perf_counter() - began

    def _messages(self, data: bytes) -> Any:
        return [{"role": "user", "content": [{"type": "image", "data": data}, {"type": "text", "text": _QUESTION}]}]

    def _prepared(self, data: bytes) -> Prepared:
        return prepare_image(image_source(MediaPart("image", "bytes", data)).pixels(), self.contract)


def _torch_model(backbone: Path, threads: int) -> Callable[[Any, Any], int]:
    import torch
    from transformers import AutoModelForImageTextToText

    from lime_edge.backbones.lime_vision import register

    register()
    torch.set_num_threads(threads)
    model = AutoModelForImageTextToText.from_pretrained(backbone, dtype=torch.float32).train(False)

    def run(ids: Any, pixel_values: Any) -> int:
        with torch.inference_mode():
            given = {"input_ids": torch.from_numpy(ids), "pixel_values": torch.from_numpy(pixel_values)}
            return int(model(**given, logits_to_keep=1).logits[0, -1].argmax())

    return run


def _files() -> Iterator[bytes]:
    """Endless JPEG files of smooth colours, each of its own."""
    rng = np.random.default_rng(0)
    while True:
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        file = io.BytesIO()
        small.resize((_SIDES[1], _SIDES[0]), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        yield file.getvalue()


if __name__ == "__main__":
    main()
