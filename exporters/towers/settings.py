"""What the files of a vision-language checkpoint say about pictures, with the defaults that transformers fills in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from lime_edge.common.strict_json import load_json, show
from lime_edge.contract.names import TOKENIZER_FILE
from lime_edge.contract.vision import Pixels, Resample
from lime_edge.errors import ExportError

_RESAMPLE: tuple[Resample, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's numbers
_STEPS = ("do_resize", "do_rescale", "do_normalize")


@dataclass(frozen=True)
class Settings:
    """The settings of a checkpoint that a `VisionContract` is made of.

    Attributes:
        config: transformers' configuration of the model.
        image: transformers' image processor (its variant for Pillow); None if the family has none.
        video: The object in video_preprocessor_config.json; empty if there is none.
        tiles: Most tiles of a picture that are wanted.
        frames: Most frames of a video that are wanted.
        tokens: Every added token by its id.
    """

    config: Any
    image: Any
    video: dict[str, Any]
    tiles: int
    frames: int
    tokens: dict[int, str]

    def token(self, number: int) -> str:
        """The special token with an id.

        Raises:
            ExportError: The tokenizer has no such special token.
        """
        if number not in self.tokens:
            raise ExportError(f"the tokenizer has no special token with the id {number}, which stands for pictures")
        return self.tokens[number]

    def pixels(self) -> Pixels:
        """How pixels become numbers.

        Raises:
            ExportError: The processor skips a step that every picture goes through here.
        """
        image = self.image
        if skipped := [step for step in _STEPS if not getattr(image, step)]:
            raise ExportError(f"the image processor has {', '.join(skipped)} turned off; expected all of them on")
        mean, std = (tuple(float(x) for x in values) for values in (image.image_mean, image.image_std))
        return Pixels(_RESAMPLE[int(image.resample)], float(image.rescale_factor), mean, std)  # type: ignore[arg-type]


def read_settings(directory: Path, config: Any, processors: tuple[str, ...], tiles: int, frames: int) -> Settings:
    """Read the settings of a checkpoint.

    Args:
        directory: The checkpoint.
        config: Its configuration, as AutoConfig returns it.
        processors: Names of the image processors that the family is exported with; none if it needs no settings.
        tiles, frames: As in `Settings`.

    Raises:
        ExportError: A file is missing or unreadable, or names another image processor.
    """
    image = _image_processor(directory, processors) if processors else None
    video = _object(directory, "video_preprocessor_config.json", "video_processor") or {}
    added = _read(directory / TOKENIZER_FILE).get("added_tokens", [])
    tokens = {int(token["id"]): str(token["content"]) for token in added}
    return Settings(config, image, video, tiles, frames, tokens)


def _image_processor(directory: Path, processors: tuple[str, ...]) -> Any:
    """The image processor, as its class for Pillow fills in the defaults."""
    values = _object(directory, "preprocessor_config.json", "image_processor")
    if values is None:
        raise ExportError(f"{directory} has no preprocessor_config.json; save the processor beside the model")
    name = str(values.get("image_processor_type", processors[0])).removesuffix("Fast").removesuffix("Pil")
    if name not in processors:
        raise ExportError(f"the image processor is {show(name)}; expected one of {', '.join(processors)}")
    kept = {key: value for key, value in values.items() if key not in ("image_processor_type", "processor_class")}
    try:
        return getattr(transformers, f"{name}Pil")(**kept)
    except Exception as error:  # their own checks raise many classes
        raise ExportError(f"the settings of {name} in {directory} cannot be used: {error}") from error


def _object(directory: Path, file: str, key: str) -> dict[str, Any] | None:
    """The settings of a processor: a file of their own, or a part of processor_config.json."""
    if (directory / file).is_file():
        return _read(directory / file)
    if (directory / "processor_config.json").is_file():
        found = _read(directory / "processor_config.json").get(key)
        return found if isinstance(found, dict) else None
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes()) if path.name == TOKENIZER_FILE else load_json(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ExportError(f"{path} holds {type(found).__name__}; expected an object")
    return found
