"""`LimeConfig`: which values and keys it rejects, and how it lists the faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lime_edge.errors import ConfigError
from lime_edge.method.config import LimeConfig


def test_every_fault_of_a_config_is_listed() -> None:
    wrong: dict[str, Any] = {
        "target_modules": [],
        "base": "lore",
        "r": 0,
        "alpha": "much",
        "routing": None,
        "routing_scale": "row",
        "kinds": ("gain", "expert"),
        "jitter": 1.0,
        "balance": (0.1, -1),
        "balance_every": 0,
    }
    with pytest.raises(ConfigError) as caught:
        LimeConfig(**wrong)
    assert [fault.split()[0] for fault in caught.value.faults] == list(wrong)


@pytest.mark.parametrize("wrong", [{"alpha": float("inf")}, {"alpha": True}, {"kinds": ()}, {"balance": 3}, {"r": 2.0}])
def test_single_faults_of_a_config(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        LimeConfig(**wrong)


def test_unknown_keys_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="lora_alpha"):
        LimeConfig(lora_alpha=3)  # type: ignore[call-arg]
    LimeConfig().save_pretrained(str(tmp_path))
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": 1, "taste": 2}))
    with pytest.raises(ConfigError, match=r"'colour'[^$]*'taste'"):
        LimeConfig.from_pretrained(str(tmp_path))
