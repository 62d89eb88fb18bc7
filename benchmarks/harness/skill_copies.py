"""Makes many different skills for one model: copies of a real skill with other names and other values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from lime_edge.skills.package import read_skill, write_skill

_LEAST = 0.9  # each value is multiplied by a random factor between this and 1, so that no bound is exceeded


def write_copies(source: Path, folder: Path, count: int) -> list[Path]:
    """Write the copies that a folder lacks.

    Args:
        source: The skill to copy.
        folder: Folder of the copies, ``copy-0.lime`` and so on.
        count: Number of copies.

    Returns:
        The files of all copies.
    """
    skill = read_skill(source)
    dtype: Any = skill.dtype.lower()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"copy-{number}.lime" for number in range(count)]
    for number, path in enumerate(track(paths, "writing skills", transient=True)):
        if path.exists():
            continue
        rng = np.random.default_rng(number)
        tensors = {
            name: array * rng.uniform(_LEAST, 1, array.shape).astype(np.float32)
            for name, array in skill.tensors.items()
        }
        write_skill(path, replace(skill.manifest, name=path.stem), tensors, dtype)
    return paths
