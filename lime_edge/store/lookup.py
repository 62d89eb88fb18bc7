"""Skills as files: which lie in a model directory or the store, and which file a name on the command line means."""

from __future__ import annotations

from pathlib import Path

from lime_edge.contract.names import SKILL_SUFFIX, SKILLS_FOLDER
from lime_edge.errors import UnknownSkillError

from .store import Store


def skill_files(directory: Path) -> list[Path]:
    """The packages in a model directory's ``skills/``, or of a plain folder of packages; sorted by name."""
    inside = directory / SKILLS_FOLDER
    return sorted((inside if inside.is_dir() else directory).glob(f"*{SKILL_SUFFIX}"))


def find_skill(directory: Path, name_or_file: str) -> Path:
    """The package that `name_or_file` means: a name in the model directory, else a file, else an installed skill.

    Raises:
        UnknownSkillError: None of them; names the skills that are there.
    """
    inside = directory / SKILLS_FOLDER / f"{name_or_file}{SKILL_SUFFIX}"
    if not _is_file_name(name_or_file) and inside.is_file():
        return inside
    try:
        return find_installed(name_or_file)
    except UnknownSkillError as error:
        if _is_file_name(name_or_file):
            raise
        names = ", ".join(repr(found.stem) for found in skill_files(directory))
        there = f"it holds {names}" if names else "it holds none"
        raise UnknownSkillError(
            f"no skill named {name_or_file!r} in {directory / SKILLS_FOLDER}; {there}: give a name or a file",
            [error.message],
        ) from error


def find_installed(name_or_file: str) -> Path:
    """The package that `name_or_file` means: a file, else an installed ``NAME`` or ``NAME@VERSION``.

    Raises:
        UnknownSkillError: Neither; names the skills that are installed.
        StoreError: The store cannot be read.
    """
    path = Path(name_or_file)
    if path.is_file():
        return path
    if _is_file_name(name_or_file):
        raise UnknownSkillError(f"there is no file {name_or_file!r}; expected a {SKILL_SUFFIX} file")
    return Store().get(name_or_file)


def _is_file_name(text: str) -> bool:
    path = Path(text)
    return path.suffix == SKILL_SUFFIX or len(path.parts) != 1
