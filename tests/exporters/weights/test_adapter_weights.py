"""Adapters that no graph can express."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lime_edge.contract.module_table import Module
from lime_edge.contract.routing import Routing
from lime_edge.errors import ExportError
from lime_edge.exporters import export
from tests.exporters.export_case import (
    make_adapter,
    replaced,
)

ADAPTER_FAULTS: dict[str, Any] = {
    "routing scale is 'batch'": lambda a: replace(a, routing_scale="batch"),
    "no module is adapted": lambda a: replace(a, modules=()),
    "kinds are gain, expert": lambda a: replace(a, kinds=("gain", "expert")),
    "a rank gate alone": lambda a: replace(a, kinds=("rank",)),
    "q_proj cannot be gain-only: the kinds do not include gain": lambda a: replace(
        a, kinds=("expert",), gain_only=("q_proj",)
    ),
    "c_fc cannot be gain-only: adapted are down_proj": lambda a: replace(a, gain_only=("c_fc", "q_proj")),
    "q_proj cannot be gain-only: a soft prefix adapts no projection": lambda a: replace(
        a, prefix=Module("embed", 64, 4), gain_only=("q_proj",)
    ),
    "a soft prefix allows no adapted modules": lambda a: replace(a, prefix=Module("embed", 64, 4)),
    "is adapted 2 times": lambda a: replace(a, modules=a.modules + a.modules[:1]),
    "expected [r, D] and [H, r]": lambda a: replaced(a, a=a.modules[0].a[:-1]),
    "not finite": lambda a: replaced(a, b=a.modules[0].b * np.inf),
    "fewer than 64 experts": lambda a: replace(a, routing=Routing(experts=64)),
}


@pytest.mark.parametrize("fault", ADAPTER_FAULTS)
def test_an_unfit_adapter_is_refused(fault: str, backbone: Path, tmp_path: Path) -> None:
    adapter = ADAPTER_FAULTS[fault](make_adapter(backbone))
    with pytest.raises(ExportError, match=re.escape(fault)):
        export(adapter, backbone, tmp_path / "out", "fp32")
    assert not list(tmp_path.iterdir())
