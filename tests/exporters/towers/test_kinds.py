"""Which checkpoints take pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lime_edge.errors import ExportError
from lime_edge.exporters.towers.kinds import config_json, sees


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "llama"}, False),
        ({"model_type": "llava", "vision_config": {}}, True),
        ({"model_type": "unknown", "vision_config": None}, True),
        ({"model_type": "lime_vision"}, True),
        ([], False),
    ],
)
def test_by_the_configuration_alone(config: Any, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    assert sees(tmp_path) is expected


@pytest.mark.parametrize("content", [None, "", "[]", '{"a": 1, "a": 2}'])
def test_an_unreadable_configuration(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content, "utf-8")
    assert not sees(tmp_path)
    with pytest.raises(ExportError, match=r"config\.json"):
        config_json(tmp_path)
