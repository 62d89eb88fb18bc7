"""What cannot be exported is refused with every reason at once, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lime_edge.contract.module_table import Module
from lime_edge.contract.routing import Routing
from lime_edge.errors import ExportError
from lime_edge.exporters import AdapterWeights, export
from tests.exporters.test_export import contents, make_adapter
from tests.support.tiny import tiny_model


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("llama", tmp_path_factory.mktemp("refusals") / "llama")


def replaced(adapter: AdapterWeights, **changes: Any) -> AdapterWeights:
    """The adapter with its first module changed."""
    return replace(adapter, modules=(replace(adapter.modules[0], **changes), *adapter.modules[1:]))


ADAPTER_FAULTS: dict[str, Any] = {
    "routing scale is 'batch'": lambda a: replace(a, routing_scale="batch"),
    "no module is adapted": lambda a: replace(a, modules=()),
    "kinds are gain, expert": lambda a: replace(a, kinds=("gain", "expert")),
    "a rank gate alone": lambda a: replace(a, kinds=("rank",)),
    "q_proj can have no gain alone": lambda a: replace(a, kinds=("expert",), gain_only=("q_proj",)),
    "no c_fc to keep the gain of; adapted are down_proj": lambda a: replace(a, gain_only=("c_fc", "q_proj")),
    "self_attn.q_proj, model.layers.0.self_attn.k_proj, model.layers.0.self_attn.v_proj are one node of the graph": (
        lambda a: replace(a, gain_only=("q_proj",))
    ),
    "no gain alone: a soft prefix adapts no projection": lambda a: replace(
        a, prefix=Module("embed", 64, 4), gain_only=("q_proj",)
    ),
    "is adapted 2 times": lambda a: replace(a, modules=a.modules + a.modules[:1]),
    "expected [r, D] and [H, r]": lambda a: replaced(a, a=a.modules[0].a[:-1]),
    "not finite": lambda a: replaced(a, b=a.modules[0].b * np.inf),
    "fewer than 64 experts": lambda a: replace(a, routing=Routing(experts=64)),
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


def test_numbers_beyond_half_precision_are_refused(backbone: Path, tmp_path: Path) -> None:
    adapter = make_adapter(backbone, ("o_proj",))
    large = replaced(adapter, b=adapter.modules[0].b * np.float32(1e6))
    with pytest.raises(ExportError, match=r"exceeds 6.55e\+04, the largest FLOAT16"):
        export(large, backbone, tmp_path / "out", "fp16")
    assert not list(tmp_path.iterdir())
    export(large, backbone, tmp_path / "out", "fp32")


def test_all_faults_at_once(backbone: Path, tmp_path: Path) -> None:
    adapter = replaced(make_adapter(backbone), name="lm_head", b=np.full((64, 1), np.nan, np.float32))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("mine")
    with pytest.raises(ExportError) as caught:
        export(replace(adapter, routing_scale="batch"), backbone, tmp_path / "out", "int3")  # type: ignore[arg-type]
    for fault in ("'batch'", "expected [r, D]", "not finite", "lm_head: not a", "is not empty", "precision is 'int3'"):
        assert fault in str(caught.value)
    assert len(caught.value.faults) == 6
    assert contents(tmp_path / "out") == {"precious": b"mine"}


def test_only_an_exported_directory_is_overwritten(backbone: Path, tmp_path: Path) -> None:
    adapter, out = make_adapter(backbone, ("o_proj",)), tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("mine")
    with pytest.raises(ExportError, match="holds something else"):
        export(adapter, backbone, out, "fp32", overwrite=True)
    (out / "precious").unlink()
    export(adapter, backbone, out, "fp32")  # an empty directory is as good as none
    (out / "skills").mkdir()
    with pytest.raises(ExportError, match="is not empty"):
        export(adapter, backbone, out, "fp32")
    assert export(adapter, backbone, out, "int4", overwrite=True).precision == "int4"
    assert not (out / "skills").exists()
    with pytest.raises(ExportError, match="is not a directory"):
        export(adapter, backbone, out / "lime.json", "fp32")
