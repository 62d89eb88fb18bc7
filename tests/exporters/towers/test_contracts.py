"""Which vision-language checkpoints are exported, and which are refused and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lime_edge.errors import ExportError
from lime_edge.exporters.towers.contracts import FAMILIES, family_name, vision_contract
from lime_edge.exporters.towers.kinds import sees
from tests.exporters.towers.tower_case import checkpoint, contract_of
from tests.support.tiny import tiny_model
from tests.support.vision.tiny_vision import FAMILIES as TINY
from tests.support.vision.tiny_vision import IDS


@pytest.mark.parametrize("name", TINY)
def test_every_family_says_what_it_does_with_pictures(name: str) -> None:
    contract = contract_of(name)
    assert sees(checkpoint(name))
    assert contract.faults() == []
    assert (contract.features, contract.image_token_id) == (64, IDS[contract.image_token])
    assert contract.pixels.mean == (0.48, 0.46, 0.41)


def test_the_families_are_those_of_the_tiny_models_and_our_own() -> None:
    assert {family_name(checkpoint(name)) for name in TINY} | {"lime_vision"} == set(FAMILIES)


def test_a_language_model_takes_no_pictures(tmp_path: Path) -> None:
    assert not sees(tiny_model("llama", tmp_path))


def _config(directory: Path, config: Any) -> Path:
    (directory / "config.json").write_text(json.dumps(config), "utf-8")
    return directory


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "qwen3_vl", "vision_config": {}}, r"'qwen3_vl' are not exported: .*\(DeepStack\)"),
        ({"model_type": "gemma3", "vision_config": {}}, "'gemma3' are not exported: only families whose export"),
        ({"vision_config": {}}, "of the type None are not exported"),
        ([], "holds list; expected an object"),
    ],
)
def test_others_are_refused_by_name_with_a_reason(config: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=reason):
        vision_contract(_config(tmp_path, config))


def test_limits_are_checked_at_once() -> None:
    with pytest.raises(ExportError) as caught:
        vision_contract(checkpoint("smolvlm"), tiles=0, frames=True)
    assert "tiles is 0; expected a whole number from 1 to 64" in str(caught.value)
    assert "frames is True; expected a whole number from 1 to 768" in str(caught.value)


def test_a_directory_without_configuration(tmp_path: Path) -> None:
    assert not sees(tmp_path)
    with pytest.raises(ExportError, match=r"config\.json cannot be read: .*No such file"):
        vision_contract(tmp_path)
    with pytest.raises(ExportError, match=r"config\.json cannot be used"):
        vision_contract(_config(tmp_path, {"model_type": "llava", "vision_config": 5}))
