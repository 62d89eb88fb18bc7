"""Finds skill files: those of a model directory, and the file that a name on the command line means."""

from __future__ import annotations

import os
from pathlib import Path

from lime_edge.contract.names import SKILL_SUFFIX, SKILLS_FOLDER
from lime_edge.errors import UnknownSkillError

from .store import Store


def skill_files(directory: Path) -> list[Path]:
    """The packages in the ``skills/`` folder of a model directory, or directly in a folder; sorted by name."""
    inside = directory / SKILLS_FOLDER
    return sorted((inside if inside.is_dir() else directory).glob(f"*{SKILL_SUFFIX}"))


def find_skill(directory: Path, name_or_file: str) -> Path:
    """Find a skill by its name in the model directory, else as a file, else as an installed skill.

    Raises:
        UnknownSkillError: There is no such skill; names the skills of the model and the installed ones.
        StoreError: The store cannot be read.
    """
    inside = directory / SKILLS_FOLDER / f"{name_or_file}{SKILL_SUFFIX}"
    if not _is_file_name(name_or_file) and os.path.isfile(inside):
        return inside
    try:
        return find_installed(name_or_file)
    except UnknownSkillError as error:
        if _is_file_name(name_or_file):
            raise
        names = ", ".join(repr(path.stem) for path in skill_files(directory))
        listed = f"it holds {names}" if names else "it holds none"
        raise UnknownSkillError(
            f"no skill named {name_or_file!r} in {directory / SKILLS_FOLDER}; {listed}: give a name or a file",
            [error.message],
        ) from error


def find_installed(name_or_file: str) -> Path:
    """Find a skill as a file, else as an installed ``NAME`` or ``NAME@VERSION``.

    Raises:
        UnknownSkillError: There is no such skill; names the installed ones.
        StoreError: The store cannot be read.
    """
    path = Path(name_or_file)
    if os.path.isfile(path):  # unlike Path.is_file, false for a name that is too long
        return path
    if _is_file_name(name_or_file):
        raise UnknownSkillError(f"there is no file {name_or_file!r}; expected a {SKILL_SUFFIX} file")
    return Store().get(name_or_file)


def _is_file_name(text: str) -> bool:
    path = Path(text)
    return path.suffix == SKILL_SUFFIX or len(path.parts) != 1
