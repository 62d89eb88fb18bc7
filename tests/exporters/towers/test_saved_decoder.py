"""The decoder of a model, saved as a language model: the same logits, nothing copied or changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2_5_VLForConditionalGeneration

from lime_edge.exporters.towers.saved_decoder import save_decoder
from tests.exporters.towers.tower_case import checkpoint, contract_of, torch_model


@pytest.mark.parametrize("name", ["llava_clip", "llava_onevision", "idefics3", "qwen2_vl"])
def test_the_logits_of_text_stay_the_same(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, rotary = torch_model(name), contract_of(name).rotary_3d
    state = {key: value.clone() for key, value in model.state_dict().items()}
    capfd.readouterr()
    save_decoder(model, checkpoint(name), tmp_path / "decoder", rotary)
    assert capfd.readouterr() == ("", "")
    opened: Any = (Qwen2_5_VLForConditionalGeneration if rotary else AutoModelForCausalLM).from_pretrained(
        tmp_path / "decoder", dtype=torch.float32
    )
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.allclose(opened.eval()(ids).logits, model(ids).logits, atol=1e-5)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    names = {path.name for path in (tmp_path / "decoder").iterdir()}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= names
