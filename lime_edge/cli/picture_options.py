"""Options that show pictures and videos to a model, and the prompt that they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from .options import path_type


def picture_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --image and --video, both repeatable, as `images` and `videos`."""
    for name, what in (("video", "A video"), ("image", "A picture")):
        option = click.option(
            f"--{name}",
            f"{name}s",
            multiple=True,
            type=path_type(),
            metavar="FILE",
            help=f"{what} shown before the prompt; may be repeated.",
        )
        command = option(command)
    return command


def with_pictures(text: str, images: Sequence[Path], videos: Sequence[Path]) -> Any:
    """The text, or a list of parts: pictures, then the text."""
    shown = [{"type": "image", "path": str(path)} for path in images]
    shown += [{"type": "video", "path": str(path)} for path in videos]
    return [*shown, {"type": "text", "text": text}] if shown else text
