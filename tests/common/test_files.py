"""Atomic writes leave the old file or the new one; bounded reads accept only small regular files.

tests/store/test_store_crash.py kills a process at each system call.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lime_edge.common.files import check_writable, make_folder, read_bounded, reason, write_file


def test_a_file_is_created_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for data in (b"one", b"", b"x" * 2**20):
        write_file(path, data)
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_other(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    write_file(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="No space left"):
            write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole(descriptor, data[:3]))
    write_file(tmp_path / "a", b"0123456789")
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_folders_are_made_with_their_parents_and_may_exist(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_read_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(ValueError, match="more than 4 bytes"):
        read_bounded(path, 4)


def test_links_are_followed_only_on_request(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "link").symlink_to("a")
    assert read_bounded(tmp_path / "link", 9) == b"1"
    with pytest.raises(ValueError, match="it is a symbolic link; expected the file itself"):
        read_bounded(tmp_path / "link", 9, follow=False)


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        read_bounded(tmp_path / "pipe", 9)


def test_reasons_are_short(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        read_bounded(tmp_path / "none", 9)
    assert reason(caught.value) == "No such file or directory"
    assert reason(ValueError("it is large")) == "it is large"


def test_a_path_without_a_name_is_refused() -> None:
    with pytest.raises(IsADirectoryError):
        write_file(Path(""), b"")


def test_writing_is_checked_where_the_nearest_folder_is_and_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    check_writable(tmp_path / "new" / "folder")
    for folder, error in (
        (tmp_path / "file" / "below", NotADirectoryError),
        (tmp_path / "file", NotADirectoryError),
        (tmp_path / "link" / "below", FileNotFoundError),
        (tmp_path / ("n" * 300) / "below", OSError),
    ):
        with pytest.raises(error):
            check_writable(folder)
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]
