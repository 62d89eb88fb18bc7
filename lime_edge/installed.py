"""Skills as files: which lie in a model directory, and which file a name on the command line means."""

from __future__ import annotations

from pathlib import Path

from .errors import UnknownSkillError

FOLDER, SUFFIX = "skills", ".lime"


def skill_files(directory: Path) -> list[Path]:
    """The packages in a model directory's ``skills/``, or of a plain folder of packages; sorted by name."""
    inside = directory / FOLDER
    return sorted((inside if inside.is_dir() else directory).glob(f"*{SUFFIX}"))


def find_skill(directory: Path, name_or_file: str) -> Path:
    """The package that `name_or_file` means: a name in the model directory, else a file.

    Raises:
        UnknownSkillError: Neither; names the skills that are there.
    """
    path = Path(name_or_file)
    if path.suffix == SUFFIX or len(path.parts) != 1:
        if path.is_file():
            return path
        raise UnknownSkillError(f"there is no file {name_or_file!r}; expected a {SUFFIX} file")
    inside = directory / FOLDER / f"{name_or_file}{SUFFIX}"
    if inside.is_file():
        return inside
    if path.is_file():
        return path
    names = ", ".join(repr(found.stem) for found in skill_files(directory))
    there = f"it holds {names}" if names else "it holds none"
    raise UnknownSkillError(f"no skill named {name_or_file!r} in {directory / FOLDER}; {there}: give a name or a file")
