"""Backbones that cannot be exported, and modules that do not fit a backbone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lime_edge.errors import ExportError
from lime_edge.exporters import export
from tests.exporters.export_case import (
    contents,
    make_adapter,
    replaced,
)

ADAPTER_FAULTS: dict[str, Any] = {
    "lm_head: not a projection": lambda a: replaced(a, name="lm_head"),
    "the backbone has no such module": lambda a: replaced(a, name="model.layers.9.self_attn.q_proj"),
    "made for a weight of": lambda a: replaced(a, b=np.ones((50, a.modules[0].rank), np.float32)),
}


@pytest.mark.parametrize("fault", ADAPTER_FAULTS)
def test_an_unfit_adapter_is_refused(fault: str, backbone: Path, tmp_path: Path) -> None:
    adapter = ADAPTER_FAULTS[fault](make_adapter(backbone))
    with pytest.raises(ExportError, match=re.escape(fault)):
        export(adapter, backbone, tmp_path / "out", "fp32")
    assert not list(tmp_path.iterdir())


BACKBONE_FAULTS: dict[str, Any] = {
    "tokenizer.json is missing": lambda d: (d / "tokenizer.json").unlink(),
    "names no architecture (FileNotFoundError": lambda d: (d / "config.json").unlink(),
    "names no architecture (KeyError": lambda d: (d / "config.json").write_text("{}"),
    "does not know the architecture 'FooForBar'": lambda d: (d / "config.json").write_text(
        json.dumps({"architectures": ["FooForBar"]})
    ),
    "has no *.safetensors": lambda d: (d / "model.safetensors").unlink(),
    "model.safetensors cannot be read": lambda d: (d / "model.safetensors").write_bytes(b"no weights"),
    "is not a directory": shutil.rmtree,
    "model builder failed": lambda d: (d / "config.json").write_text(
        (d / "config.json").read_text().replace('"intermediate_size": 96', '"intermediate_size": 80')
    ),
}


@pytest.mark.parametrize("fault", BACKBONE_FAULTS)
def test_an_unfit_backbone_is_refused(fault: str, backbone: Path, tmp_path: Path) -> None:
    adapter = make_adapter(backbone, ("o_proj",))
    copy = shutil.copytree(backbone, tmp_path / "backbone")
    BACKBONE_FAULTS[fault](copy)
    with pytest.raises(ExportError, match=re.escape(fault)):
        export(adapter, copy, tmp_path / "new" / "out", "fp32")
    assert not contents(tmp_path / "new")
