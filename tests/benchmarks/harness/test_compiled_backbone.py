"""The compiled operations compute what the backbone's own do, and run only where gradients flow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.models.llama import modeling_llama as llama

from benchmarks.harness.compiled_backbone import compile_between
from tests.support.tiny_training import backbone, ids


def test_compiled_operations_equal_the_backbones_and_run_for_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []

    def record(function: Any, **_: Any) -> Any:
        """Stands in for torch.compile, which needs a C++ compiler."""

        def call(*arguments: Any, **named: Any) -> Any:
            compiled.append(function.__name__)
            return function(*arguments, **named)

        return call

    for owner, name in ((llama.LlamaRMSNorm, "forward"), (llama.LlamaMLP, "forward"), (llama, "apply_rotary_pos_emb")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # restored after the test
    monkeypatch.setattr(torch, "compile", record)
    model, tokens = backbone().train(), ids(2, 5)
    wanted = model(tokens).logits
    compile_between()
    with torch.no_grad():
        model(tokens)
    assert compiled == []
    torch.testing.assert_close(model(tokens).logits, wanted)
    assert set(compiled) == {"_norm", "_gate", "apply_rotary_pos_emb"}
