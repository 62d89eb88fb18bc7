"""What is said of the pictures of a data file before it is learned from."""

from __future__ import annotations

from pathlib import Path

from lime_edge.evaluation.examples import read_rows, scan
from lime_edge.evaluation.picture_profile import PictureProfile
from lime_edge.evaluation.profile import profile
from lime_edge.reports.data import describe_data
from tests.support.tiny_training import write_rows
from tests.support.vision.pictures import png, write_png


def row(*images: str, **others: object) -> dict[str, object]:
    return {"prompt": "which?", "answer": "lime", "images": list(images), **others}


def test_sizes_are_of_different_images_and_counts_of_their_uses(tmp_path: Path) -> None:
    for seed, size in enumerate((8, 20, 32)):
        write_png(tmp_path / f"{size}.png", seed, size)
    rows = [row("8.png"), row("20.png", "32.png"), row("8.png"), row(frames=["8.png", "20.png"])]
    found = PictureProfile.of(read_rows(write_rows(tmp_path / "train.jsonl", rows)))
    assert found.faults == []
    assert found.facts() == {
        "images": 4,
        "videos": 1,
        "different": 3,
        "width": {"least": 8, "median": 20, "most": 32},
        "height": {"least": 8, "median": 20, "most": 32},
    }


def test_rows_of_text_have_no_pictures(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", [{"prompt": "p", "answer": "a"}])
    assert PictureProfile.of(read_rows(path)).facts() == {}
    assert profile(scan(path))["pictures"] == {}


def test_damaged_pictures_make_their_rows_unusable_and_are_named(tmp_path: Path) -> None:
    write_png(tmp_path / "good.png", 0, 16)
    (tmp_path / "cut.png").write_bytes(png(1, 64)[:200])
    (tmp_path / "text.png").write_text("no picture")
    rows = [row("good.png"), row("cut.png"), row("good.png", "text.png"), row(frames=["good.png", "cut.png"])]
    path = write_rows(tmp_path / "train.jsonl", rows)
    document, tables = describe_data([path])
    (facts,) = document["files"]
    assert (facts["rows"], facts["bad"]) == (1, 3)
    assert [fault.split(":")[0] for fault in facts["faults"]] == ["line 2", "line 3", "line 4"]
    assert "text.png" in facts["faults"][1]
    (said,) = [cells[1] for cells in tables[0].rows if cells[0] == "pictures"]
    assert said.startswith("4 images and 1 videos, 1 different images; width 16 to 16 pixels, median 16")
