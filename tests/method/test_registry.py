"""The registry of variants: its names, and how a new variant is added."""

from __future__ import annotations

import pytest

import lime_edge.method  # noqa: F401  (registers the variants)
from lime_edge.errors import ConfigError
from lime_edge.method.config import LimeConfig
from lime_edge.method.layer import LimeLayer
from lime_edge.method.registry import VARIANTS, register_variant


def test_the_variants_of_the_paper_are_registered() -> None:
    assert set(VARIANTS) >= {"prompt", "lora", "lora-fa", "dora", "slicefine"}  # tests of benchmarks may add others
    assert all(issubclass(variant, LimeLayer) for variant in VARIANTS.values())


def test_a_registered_class_can_be_configured_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="base is 'new'; expected one of prompt, lora, lora-fa, dora, slicefine"):
        LimeConfig(base="new")

    class New(LimeLayer):
        fixed_routing = {"window": 3}  # noqa: RUF012
        targets = ("o_proj",)

    monkeypatch.setitem(VARIANTS, "new", New)  # removed after the test
    assert register_variant("new")(New) is New
    config = LimeConfig(base="new", target_modules=["q_proj"])
    assert (config.routing.window, config.target_modules) == (3, ["o_proj"])
