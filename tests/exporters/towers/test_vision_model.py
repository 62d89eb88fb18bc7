"""A checkpoint that is opened for the export; tests/exporters/test_vision_export.py has whole exports."""

from __future__ import annotations

from pathlib import Path

import pytest

from lime_edge.errors import ExportError
from lime_edge.exporters.towers.vision_model import VisionModel
from tests.exporters.towers.tower_case import checkpoint, contract_of


def test_where_the_decoder_is() -> None:
    names = {name: VisionModel.open(checkpoint(name), 1).decoder_name for name in ("llava_clip", "smolvlm", "qwen2_vl")}
    assert names == {
        "llava_clip": "model.language_model",
        "smolvlm": "model.text_model",
        "qwen2_vl": "model.language_model",
    }


def test_the_number_of_tiles_reaches_the_contract() -> None:
    assert VisionModel.open(checkpoint("smolvlm"), 5).contract == contract_of("smolvlm", 5)


def test_a_damaged_checkpoint(tmp_path: Path) -> None:
    for path in checkpoint("llava_clip").iterdir():
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(content[: len(content) // 2] if path.suffix == ".safetensors" else content)
    with pytest.raises(ExportError, match="cannot be loaded: SafetensorError"):
        VisionModel.open(tmp_path, 1)
