"""Pictures and videos that the rows of a data file name: files below its folder, or members of images.zip beside it."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lime_edge.common.strict_json import show

ARCHIVE = "images.zip"
MEMBER_LIMIT = 2**27  # bytes of one member of an archive
ARCHIVE_LIMIT = 2**32  # bytes that all rows of a file take out of an archive


class PictureFiles:
    """Finds the pictures of one data file.

    Args:
        file: The data file.
    """

    def __init__(self, file: Path) -> None:
        self._folder = Path(os.path.abspath(file)).parent
        self._archive: zipfile.ZipFile | None = None
        self._members: dict[str, bytes] = {}
        self._taken = 0

    def located(self, messages: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        """The messages with absolute paths, or bytes, in place of the names in a row.

        Raises:
            ValueError: Names every file that is missing, or not below the folder of the data file.
        """
        faults: list[str] = []
        found = tuple(
            message
            if isinstance(message["content"], str)
            else {**message, "content": [self._located(part, faults) for part in message["content"]]}
            for message in messages
        )
        if faults:
            raise ValueError("; ".join(faults))
        return found

    def close(self) -> None:
        """Close the archive."""
        if self._archive is not None:
            self._archive.close()

    def _located(self, part: dict[str, Any], faults: list[str]) -> dict[str, Any]:
        if isinstance(part.get("frames"), list):
            return {**part, "frames": [self._located(frame, faults) for frame in part["frames"]]}
        name = part.get("path")
        if name is None:
            return part
        try:
            return {"type": part["type"], **self._find(name)}
        except ValueError as error:
            faults.append(str(error))
            return part

    def _find(self, name: str) -> Mapping[str, Any]:
        inside = PurePosixPath(name.replace("\\", "/"))
        if inside.is_absolute() or ".." in inside.parts or ":" in name or "\0" in name:
            raise ValueError(f"names {show(name)}; expected a path below the folder of the data file")
        path = self._folder / inside
        real = os.path.realpath(path)
        if os.path.isfile(real):
            if not Path(real).is_relative_to(os.path.realpath(self._folder)):
                raise ValueError(f"names {show(name)}, a link out of the folder of the data file")
            return {"path": real}
        if (self._folder / ARCHIVE).is_file():
            return {"data": self._member(str(inside))}
        raise ValueError(f"names {show(name)}, which is not there")

    def _member(self, name: str) -> bytes:
        """The bytes of a member; equal names share them."""
        if name in self._members:
            return self._members[name]
        try:
            if self._archive is None:
                self._archive = zipfile.ZipFile(self._folder / ARCHIVE)
            with self._archive.open(name) as file:
                data = file.read(MEMBER_LIMIT + 1)
        except KeyError:
            raise ValueError(f"names {show(name)}, which is neither a file nor in {ARCHIVE}") from None
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise ValueError(f"names {show(name)}, which cannot be read from {ARCHIVE}: {error}") from error
        self._taken += len(data)
        if not 0 < len(data) <= MEMBER_LIMIT:
            raise ValueError(f"names {show(name)} of {len(data):,} bytes; expected 1 to {MEMBER_LIMIT:,}")
        if self._taken > ARCHIVE_LIMIT:
            raise ValueError(f"the pictures in {ARCHIVE} take more than {ARCHIVE_LIMIT:,} bytes: unzip it")
        self._members[name] = data
        return data
