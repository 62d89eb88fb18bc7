"""The detached signature file `NAME.lime.sig` beside a package: its path, and how it is read."""

from __future__ import annotations

import os
from pathlib import Path

from lime_edge.common.files import read_bounded, reason
from lime_edge.contract.names import SIGNATURE_SUFFIX
from lime_edge.errors import SkillTrustError

SIGNATURE_LIMIT = 64 * 2**10  # bytes; a signature has about 1.5 KB


def signature_path(path: str | os.PathLike[str]) -> Path:
    """The path of the signature file that belongs to a package."""
    return Path(f"{os.fspath(path)}{SIGNATURE_SUFFIX}")


def read_signature(path: str | os.PathLike[str]) -> bytes | None:
    """Read a signature file without verifying it.

    Returns:
        Its bytes; None if there is no such file.

    Raises:
        SkillTrustError: The file cannot be read, is larger than `SIGNATURE_LIMIT`, or is not a regular file.
    """
    try:
        return read_bounded(path, SIGNATURE_LIMIT, follow=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SkillTrustError(f"the signature {path} cannot be used", [reason(error)]) from error
