"""Pictures that rows name: below the folder of the data file, or in its archive, and nowhere else."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from lime_edge.errors import DataError
from lime_edge.evaluation import picture_files
from lime_edge.evaluation.examples import read_rows
from lime_edge.evaluation.picture_files import PictureFiles
from tests.support.tiny_training import write_rows
from tests.support.vision.pictures import png, write_png


def content(*names: str) -> tuple[dict[str, Any], ...]:
    return ({"role": "user", "content": [{"type": "image", "path": name} for name in names]},)


def archive(folder: Path, *names: str) -> None:
    with zipfile.ZipFile(folder / "images.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for seed, name in enumerate(names):
            file.writestr(name, png(seed))


def test_files_win_over_members_of_the_archive(tmp_path: Path) -> None:
    archive(tmp_path, "images/a.png", "images/b.png")
    loose = write_png(tmp_path / "images" / "b.png", 7)
    files = PictureFiles(tmp_path / "train.jsonl")
    (found,) = files.located(content("images/a.png", "images/b.png"))
    assert found["content"] == [
        {"type": "image", "data": png(0)},
        {"type": "image", "path": str(loose.resolve())},
    ]
    files.close()


def test_frames_of_a_video_are_found_too(tmp_path: Path) -> None:
    write_png(tmp_path / "0.png", 0)
    video = {"type": "video", "frames": [{"type": "image", "path": "0.png"}]}
    (found,) = PictureFiles(tmp_path / "x.jsonl").located(({"role": "user", "content": [video]},))
    assert found["content"][0]["frames"][0]["path"] == str((tmp_path / "0.png").resolve())


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside.png", "a/../../outside.png", "..\\outside.png", "C:a.png"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    write_png(tmp_path / "outside.png", 0)
    inside = tmp_path / "data"
    inside.mkdir()
    with pytest.raises(ValueError, match="below the folder"):
        PictureFiles(inside / "train.jsonl").located(content(name))


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "outside.png", 0)
    inside = tmp_path / "data"
    inside.mkdir()
    (inside / "link.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(ValueError, match="a link out of the folder"):
        PictureFiles(inside / "train.jsonl").located(content("link.png"))


def test_members_are_bounded_whatever_the_archive_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.png", b"\0" * 100_000)
        file.writestr("empty.png", b"")
        file.writestr("a.png", b"x" * 600)
        file.writestr("b.png", b"x" * 600)
    monkeypatch.setattr(picture_files, "MEMBER_LIMIT", 1000)
    monkeypatch.setattr(picture_files, "ARCHIVE_LIMIT", 2000)
    files = PictureFiles(tmp_path / "train.jsonl")
    with pytest.raises(ValueError, match=r"bomb.*expected 1 to 1,000"):
        files.located(content("bomb.png"))
    with pytest.raises(ValueError, match=r"empty.*0 bytes"):
        files.located(content("empty.png"))
    files.located(content("a.png", "a.png"))  # read once
    with pytest.raises(ValueError, match="more than 2,000 bytes"):
        files.located(content("b.png"))
    files.close()


def test_a_damaged_archive_is_a_fault_of_the_rows(tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(b"PK\x03\x04 this is no archive")
    rows = write_rows(tmp_path / "train.jsonl", [{"prompt": "p", "answer": "a", "images": ["x.png"]}])
    with pytest.raises(DataError, match=r"cannot be read from images.zip"):
        read_rows(rows)


def test_every_missing_picture_is_named_with_its_line(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "answer": "a", "images": [f"{number}.png"]} for number in range(3)]
    write_png(tmp_path / "1.png", 0)
    with pytest.raises(DataError) as caught:
        read_rows(write_rows(tmp_path / "train.jsonl", rows))
    assert "2 of 3 rows" in str(caught.value)
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["line 1", "line 3"]
