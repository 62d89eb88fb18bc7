"""The settings of a checkpoint: where they may stand, and what is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lime_edge.errors import ExportError
from lime_edge.exporters.towers.contracts import vision_contract
from tests.exporters.towers.tower_case import checkpoint, contract_of


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return shutil.copytree(checkpoint("llava_onevision"), tmp_path / "copy")


def test_processors_may_stand_in_one_file(copy: Path) -> None:
    parts = {"image_processor": "preprocessor_config.json", "video_processor": "video_preprocessor_config.json"}
    values = {key: json.loads((copy / file).read_text("utf-8")) for key, file in parts.items()}
    for file in parts.values():
        (copy / file).unlink()
    (copy / "processor_config.json").write_text(json.dumps(values), "utf-8")
    assert vision_contract(copy) == contract_of("llava_onevision")


def test_a_fast_processor_has_the_same_settings(copy: Path) -> None:
    file = copy / "preprocessor_config.json"
    file.write_text(file.read_text("utf-8").replace("OnevisionImageProcessor", "OnevisionImageProcessorFast"), "utf-8")
    assert vision_contract(copy) == contract_of("llava_onevision")


def test_missing_and_damaged_files(copy: Path) -> None:
    (copy / "preprocessor_config.json").write_text("[", "utf-8")
    with pytest.raises(ExportError, match=r"preprocessor_config\.json cannot be read"):
        vision_contract(copy)
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(ExportError, match=r"has no preprocessor_config\.json; save the processor beside the model"):
        vision_contract(copy)


def test_a_tokenizer_without_the_image_token(copy: Path) -> None:
    tokenizer = json.loads((copy / "tokenizer.json").read_text("utf-8"))
    tokenizer["added_tokens"] = tokenizer["added_tokens"][:3]
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    with pytest.raises(ExportError, match="no special token with the id 300, which stands for pictures"):
        vision_contract(copy)
