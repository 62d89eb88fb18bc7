"""Describes the pictures of rows before anything is trained on them: how many, how large, and which cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lime_edge.contract.content_parts import MediaPart, media_parts
from lime_edge.errors import ConfigError
from lime_edge.runtime.vision.image_file import image_source

from .content import identity
from .examples import Row


@dataclass
class PictureProfile:
    """The pictures of the rows of one file.

    Attributes:
        faults: One line for each row with a picture that cannot be used.
        damaged: Indices of these rows.
    """

    faults: list[str] = field(default_factory=list)
    damaged: set[int] = field(default_factory=set)
    _sizes: dict[str, tuple[int, int] | str] = field(default_factory=dict)  # by identity; a text is a fault
    _images: int = 0
    _videos: int = 0

    @classmethod
    def of(cls, rows: Sequence[Row]) -> PictureProfile:
        """Decode every different image once; videos are counted.

        Raises:
            MissingExtraError: Pillow is not installed.
        """
        found = cls()
        for index, row in enumerate(rows):
            faults = [fault for part in media_parts(list(row.messages)) if (fault := found._look(part))]
            if faults:
                found.damaged.add(index)
                at = f"{row.place.unit} {row.place.number}" if row.place else "a row"
                found.faults.append(f"{at}: {'; '.join(faults)}")
        return found

    def facts(self) -> dict[str, Any]:
        """Plain JSON values; empty for rows of text.

        ``images`` and ``videos`` count uses, ``different`` counts images, ``width`` and ``height`` are in pixels.
        """
        if not self._images and not self._videos:
            return {}
        sizes = [size for size in self._sizes.values() if not isinstance(size, str)]
        facts: dict[str, Any] = {"images": self._images, "videos": self._videos, "different": len(sizes)}
        if sizes:
            for name, values in zip(("width", "height"), zip(*sizes, strict=True), strict=True):
                ordered = sorted(values)
                facts[name] = {"least": ordered[0], "median": ordered[len(ordered) // 2], "most": ordered[-1]}
        return facts

    def _look(self, part: MediaPart) -> str:
        """The fault of an image, or of one of the frames of a video, or ""."""
        if part.kind == "video":
            self._videos += 1
            frames = part.value if part.form == "frames" else ()
            return next((fault for frame in frames if (fault := self._fault(frame))), "")
        self._images += 1
        return self._fault(part)

    def _fault(self, part: MediaPart) -> str:
        key = str(identity([{"type": "image", {"path": "path", "bytes": "data"}.get(part.form, "image"): part.value}]))
        if key not in self._sizes:
            try:
                height, width = image_source(part).pixels().shape[:2]
                self._sizes[key] = (width, height)
            except ConfigError as error:
                self._sizes[key] = error.message
        found = self._sizes[key]
        return found if isinstance(found, str) else ""
