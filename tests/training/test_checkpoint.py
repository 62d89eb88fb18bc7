"""Checkpoint directories: what is rejected, what the digest covers, and vectors set and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lime_edge.errors import ConfigError, LimeError
from lime_edge.training import checkpoint
from lime_edge.training.checkpoint import tuner
from tests.support.tiny_training import backbone, backbone_dir, ids, logits, save, wrapped

TOKENS = ids(2, 9)


def test_what_refuses_is_a_lime_error() -> None:
    with pytest.raises(LimeError):
        checkpoint.open_checkpoint(Path("nowhere"), torch.float32)


def test_a_checkpoint_opens_in_any_precision_with_the_same_adapter(tmp_path: Path) -> None:
    wanted = wrapped()
    save(wanted, tmp_path)
    for dtype in (torch.float32, torch.bfloat16):
        model, tokenizer, where = checkpoint.open_checkpoint(tmp_path, dtype)
        assert where == backbone_dir()
        assert tokenizer.chat_template
        assert next(iter(model.parameters())).dtype == dtype
        assert checkpoint.adapter_digest(model) == checkpoint.adapter_digest(wanted)
        for name, vector in checkpoint.get_vectors(wanted).items():
            np.testing.assert_array_equal(checkpoint.get_vectors(model)[name], vector)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("adapter_config.json", None, "no adapter_config.json"),
        ("adapter_model.safetensors", None, "no adapter_model.safetensors"),
        ("adapter_config.json", lambda _: b"{", "cannot be read"),
        ("adapter_config.json", lambda old: old.replace(b'"LIME"', b'"LORA"'), "expected LIME"),
        ("adapter_config.json", lambda old: old.replace(b'"r": 4', b'"r": 5'), "cannot be loaded"),
        ("adapter_config.json", lambda old: old.replace(b'"q_proj"', b'"up_proj"'), r"missing [^$]*unknown "),
        ("adapter_config.json", lambda old: old.replace(b'"r": 4', b'"r": 0'), "r is 0"),
        ("adapter_config.json", lambda old: old.replace(b'"window": 1', b'"window": 99'), "window is 99"),
        ("adapter_config.json", lambda old: old.replace(b'digest": "', b'digest": "0'), "another backbone"),
        ("adapter_model.safetensors", lambda old: old[:-8], "cannot be loaded"),
    ],
)
def test_damaged_checkpoints_are_refused(name: str, change: Any, message: str, tmp_path: Path) -> None:
    file = save(wrapped(), tmp_path) / name
    if change is None:
        file.unlink()
    else:
        old = file.read_bytes()
        file.write_bytes(change(old))
        assert file.read_bytes() != old
    with pytest.raises(ConfigError, match=message):
        checkpoint.open_checkpoint(tmp_path, torch.float32)


def test_a_model_that_is_not_wrapped_is_named() -> None:
    with pytest.raises(ConfigError, match="expected a model wrapped with LimeConfig, found LlamaForCausalLM"):
        tuner(backbone())


def test_vectors_with_the_shared_one_folded_in_say_the_same() -> None:
    model = wrapped(shared_vector=True)
    plain = wrapped()
    for name, layer in tuner(plain).layers().items():
        twin = tuner(model).layers()[name]
        for key in ("lime_A", "lime_B"):
            getattr(layer, key)["default"].data.copy_(getattr(twin, key)["default"])
    checkpoint.set_vectors(plain, checkpoint.get_vectors(model))
    wanted = logits(model, TOKENS)
    torch.testing.assert_close(logits(plain, TOKENS), wanted, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(wanted, logits(wrapped(), TOKENS), atol=1e-2)
    checkpoint.set_vectors(model, checkpoint.get_vectors(model))  # folded already, so not added twice
    torch.testing.assert_close(logits(model, TOKENS), wanted, rtol=1e-5, atol=1e-5)


def test_the_digest_is_of_the_shared_adapter_alone() -> None:
    model, other = wrapped(), wrapped()
    checkpoint.set_vectors(other, {name: 2 * v for name, v in checkpoint.get_vectors(model).items()})
    assert checkpoint.adapter_digest(other) == checkpoint.adapter_digest(model)
    first: Any = next(iter(tuner(other).layers().values()))
    first.lime_A["default"].data[0, 0] += 1e-3
    assert checkpoint.adapter_digest(other) != checkpoint.adapter_digest(model)
    assert checkpoint.adapter_digest(wrapped(alpha=8.0)) != checkpoint.adapter_digest(model)


def test_a_shared_adapter_is_copied_with_its_digest() -> None:
    model, other = wrapped(seed=1), wrapped(seed=2)
    assert checkpoint.adapter_digest(other) != checkpoint.adapter_digest(model)
    checkpoint.set_shared(other, checkpoint.get_shared(model))
    assert checkpoint.adapter_digest(other) == checkpoint.adapter_digest(model)


def test_vectors_that_are_not_given_become_neutral() -> None:
    model = wrapped()
    name, values = next(iter(checkpoint.get_vectors(model).items()))
    checkpoint.set_vectors(model, {name: values})
    left = checkpoint.get_vectors(model)
    np.testing.assert_array_equal(left.pop(name), values)
    assert not any(vector.any() for vector in left.values())


def test_only_a_wrapped_model_is_lime() -> None:
    assert checkpoint.is_lime(wrapped())
    assert not checkpoint.is_lime(backbone())
