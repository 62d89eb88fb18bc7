"""The signature file beside a package: its path, and which files are read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lime_edge.errors import SkillTrustError
from lime_edge.trust.signature_file import SIGNATURE_LIMIT, read_signature, signature_path


def test_the_signature_lies_beside_the_package(tmp_path: Path) -> None:
    assert signature_path(tmp_path / "a.lime") == tmp_path / "a.lime.sig"
    assert signature_path("a.b") == Path("a.b.sig")  # the suffix is added, not replaced


def test_a_missing_signature_is_none_and_any_bytes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.lime.sig"
    assert read_signature(path) is None
    for data in (b"", b"no signature", b"x" * SIGNATURE_LIMIT):
        path.write_bytes(data)
        assert read_signature(path) == data


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "too large": (lambda path: path.write_bytes(b"x" * (SIGNATURE_LIMIT + 1)), "more than 65536 bytes"),
    "a folder": (lambda path: path.mkdir(), "Is a directory"),
    "a pipe": (lambda path: os.mkfifo(path), "not a regular file"),
    "a dangling link": (lambda path: path.symlink_to("none"), "symbolic link"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    path = tmp_path / "a.lime.sig"
    make(path)
    with pytest.raises(SkillTrustError, match=message) as caught:
        read_signature(path)
    assert str(path) in str(caught.value)
