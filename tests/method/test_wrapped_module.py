"""Linear, Conv1D and Embedding under a LiME layer, and the refusal of other modules and of their export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from lime_edge.errors import ConfigError, LimeError
from lime_edge.method import wrapped_module
from lime_edge.method.config import LimeConfig
from lime_edge.method.registry import VARIANTS
from lime_edge.training import checkpoint
from lime_edge.training.checkpoint import tuner
from lime_edge.training.export_checkpoint import export_checkpoint
from lime_edge.training.plan import TrainingPlan
from lime_edge.training.trainer import parameter_groups
from tests.support.tiny import tiny_tokenizer
from tests.support.tiny_training import EXPERTS, backbone, ids, logits, randomise, save, wrapped

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

LINEAR = [base for base in VARIANTS if base != "prompt"]
TOKENS = ids(2, 9)


@pytest.mark.parametrize("target", ["input_layernorm", "mlp"])
def test_other_modules_than_linear_are_refused(target: str) -> None:
    with pytest.raises(ConfigError, match=r"LiME adapts torch\.nn\.Linear, torch\.nn\.Embedding and Conv1D, not"):
        get_peft_model(backbone(), LimeConfig(target_modules=[target]))


def gpt2() -> Any:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=300, n_positions=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.15)
    config.bos_token_id = config.eos_token_id = 2
    model: Any = GPT2LMHeadModel(config)
    return model.eval()


@pytest.mark.parametrize("base", LINEAR)
def test_gpt2_and_its_conv1d(base: str, tmp_path: Path) -> None:
    config = LimeConfig(base=base, r=4, routing=EXPERTS, target_modules=["c_attn", "c_proj"])
    model = checkpoint.wrap(gpt2(), config)
    randomise(model, 3, 0.2)
    found = logits(model.eval(), TOKENS)
    assert len(tuner(model).layers()) == 6
    plain = logits(gpt2(), TOKENS)
    assert not torch.allclose(found, plain, atol=1e-2)
    with model.disable_adapter():
        assert torch.equal(logits(model, TOKENS), plain)
    model.save_pretrained(str(tmp_path))
    again = PeftModel.from_pretrained(gpt2(), str(tmp_path)).eval()
    assert torch.equal(logits(again, TOKENS), found)


@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_is_adapted_and_its_tied_twin_left_alone(tied: bool, tmp_path: Path) -> None:
    plain = backbone("llama" if tied else "mistral").eval()
    assert (plain.lm_head.weight is plain.model.embed_tokens.weight) == tied
    before = plain.lm_head.weight.detach().clone()
    hidden = torch.randn(1, 3, 64)
    wanted = plain.lm_head(hidden)
    config = LimeConfig(r=4, routing=EXPERTS, target_modules=["embed_tokens", "q_proj"])
    model = checkpoint.wrap(plain, config)
    randomise(model, 3)
    model.train()
    optimizer = torch.optim.AdamW(parameter_groups(model, TrainingPlan(weight_decay=0.5)))
    model(input_ids=TOKENS, labels=TOKENS).loss.backward()
    optimizer.step()
    head = model.get_base_model().lm_head
    assert torch.equal(head.weight, before)
    assert torch.equal(head(hidden), wanted)
    model.get_base_model().tie_weights()  # transformers does this, too
    assert (head.weight is model.get_base_model().model.embed_tokens.base_layer.weight) == tied
    assert torch.equal(head.weight, before)
    found = logits(model.eval(), TOKENS)
    with model.disable_adapter():
        assert not torch.allclose(found, logits(model, TOKENS), atol=1e-2)
    model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    again = PeftModel.from_pretrained(backbone("llama" if tied else "mistral"), str(tmp_path)).eval()
    assert torch.equal(logits(again, TOKENS), found)


def test_gemma_scales_its_embeddings() -> None:
    for base in ("dora", "slicefine"):
        config = LimeConfig(base=base, r=4, routing=EXPERTS, target_modules=["embed_tokens"], kinds=("expert",))
        model = checkpoint.wrap(backbone("gemma3"), config).eval()
        (layer,) = tuner(model).layers().values()
        with torch.no_grad():
            layer.lime_expert["default"].fill_(1)  # the trained rows still equal those of the backbone
            plain = layer.base_layer(TOKENS)
            torch.testing.assert_close(layer(TOKENS), plain, rtol=1e-5, atol=1e-5 * float(plain.abs().max()))


def test_what_no_graph_can_hold_is_refused_by_name(tmp_path: Path) -> None:
    model = wrapped(target_modules=["embed_tokens", "q_proj"])
    directory = save(model, tmp_path / "embedding")
    with pytest.warns(UserWarning, match="save_embedding_layers"):  # PEFT's default saves the backbone's embedding
        model.save_pretrained(str(tmp_path / "more"))
    with pytest.raises(ConfigError, match="a checkpoint must not hold backbone weights"):
        checkpoint.open_checkpoint(tmp_path / "more", torch.float32)
    with pytest.raises(LimeError, match=r"model\.embed_tokens: not a projection of a decoder layer"):
        export_checkpoint(directory, tmp_path / "model", "fp32")


def test_gpt2_is_refused_for_export_by_its_architecture(tmp_path: Path) -> None:
    model = gpt2()
    model.save_pretrained(tmp_path / "gpt2")
    tiny_tokenizer(tmp_path / "gpt2")
    adapted = checkpoint.wrap(model, LimeConfig(r=4, routing=EXPERTS, target_modules=["c_attn"]))
    config = tuner(adapted).lime_config
    config.base_model_name_or_path = str(tmp_path / "gpt2")
    adapted.save_pretrained(str(tmp_path / "checkpoint"))
    with pytest.raises(LimeError) as caught:
        export_checkpoint(tmp_path / "checkpoint", tmp_path / "model", "fp32")
    assert "does not know the architecture 'GPT2LMHeadModel'" in str(caught.value)
    assert "transformer.h.0.attn.c_attn: not a projection of a decoder layer" in str(caught.value)


def modules() -> list[Any]:
    """A module of each type with 5 inputs and 3 outputs, its input as vectors [2, 5], and the input it takes."""
    vectors = torch.randn(2, 5)
    tokens = torch.tensor([1, 4])
    one_hot = torch.nn.functional.one_hot(tokens, 5).float()
    conv: Any = Conv1D(3, 5)  # type: ignore[no-untyped-call]
    torch.nn.init.normal_(conv.bias)
    return [
        (torch.nn.Linear(5, 3), vectors, vectors),
        (conv, vectors, vectors),
        (torch.nn.Embedding(5, 3), one_hot, tokens),
    ]


def test_a_module_is_its_weight_and_bias() -> None:
    for module, vectors, given in modules():
        assert wrapped_module.features(module) == (5, 3)
        wanted = vectors @ wrapped_module.weight(module).T
        bias = wrapped_module.bias(module)
        torch.testing.assert_close(module(given), wanted if bias is None else wanted + bias)


def test_a_product_is_that_of_the_input_vectors() -> None:
    matrix = torch.randn(4, 5)
    for module, vectors, given in modules():
        torch.testing.assert_close(wrapped_module.product(module, given, matrix), vectors @ matrix.T)


def test_starting_rows_give_products_of_similar_size() -> None:
    torch.manual_seed(0)
    linear = wrapped_module.starting_rows(torch.nn.Linear(100, 3), 8)
    embedding = wrapped_module.starting_rows(torch.nn.Embedding(100, 3), 8)
    assert linear.shape == embedding.shape == (8, 100)
    assert 0.09 < float(linear.abs().max()) <= 0.1
    assert 0.9 < float(embedding.abs().max()) <= 1
