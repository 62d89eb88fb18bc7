"""LiME through PEFT's own calls: wrap, save, load, switch, disable, train; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model

from lime_edge.contract.routing import Routing
from lime_edge.contract.vector_kinds import KINDS
from lime_edge.errors import ConfigError
from lime_edge.method.config import ATTENTION, LimeConfig
from lime_edge.method.layer import LimeLayer
from lime_edge.training import checkpoint
from lime_edge.training.checkpoint import tuner
from lime_edge.training.plan import TrainingPlan
from lime_edge.training.trainer import parameter_groups
from tests.support.tiny_training import EXPERTS, backbone, backbone_dir, ids, logits, randomise, save, wrapped

# PEFT asks transformers by an old name; lime_edge.training.trainer.checkpoint keeps it quiet, PEFT's own calls do not.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TOKENS = ids(2, 9)


def weights(model: Any) -> dict[str, torch.Tensor]:
    """A copy of the backbone's weights by name."""
    named = ((name.replace(".base_layer", ""), p) for name, p in model.named_parameters() if "lime_" not in name)
    return {name.removeprefix("base_model.model."): p.detach().clone() for name, p in named}


@pytest.mark.parametrize(
    "others", [{}, {"routing": Routing(experts=2, window=3)}, {"kinds": KINDS, "shared_vector": True}]
)
def test_saved_and_loaded_it_answers_bit_for_bit_the_same(others: dict[str, Any], tmp_path: Path) -> None:
    model = wrapped(**others)
    model.save_pretrained(str(tmp_path))
    again = PeftModel.from_pretrained(backbone(), str(tmp_path)).eval()
    assert torch.equal(logits(again, TOKENS), logits(model, TOKENS))
    mine, theirs = tuner(model).lime_config.to_dict(), tuner(again).lime_config.to_dict()
    for key in ("inference_mode", "auto_mapping"):  # PEFT's own
        del mine[key], theirs[key]
    assert mine == theirs
    assert isinstance(tuner(again).lime_config.routing, Routing)
    assert not [name for name, p in again.named_parameters() if p.requires_grad]


def test_two_adapters_switch_and_the_base_stays() -> None:
    model = wrapped()
    first = logits(model, TOKENS)
    model.add_adapter("other", LimeConfig(r=2, routing=Routing(experts=2, window=2), target_modules=["q_proj"]))
    randomise(model, 7)
    first = logits(model, TOKENS)
    model.set_adapter("other")
    second = logits(model, TOKENS)
    assert len(tuner(model).layers()) == 2
    assert tuner(model).table().experts == 2
    assert not torch.allclose(first, second, atol=1e-3)
    model.set_adapter("default")
    assert len(tuner(model).layers()) == 8
    assert torch.equal(logits(model, TOKENS), first)
    plain = logits(backbone().eval(), TOKENS)
    with model.disable_adapter():
        assert torch.equal(logits(model, TOKENS), plain)
    assert torch.equal(logits(model, TOKENS), first)
    model.delete_adapter("other")
    assert torch.equal(logits(model, TOKENS), first)


def test_two_active_adapters_are_refused() -> None:
    model = wrapped()
    model.add_adapter("other", LimeConfig(target_modules=list(ATTENTION)))
    model.base_model.set_adapter(["default", "other"])
    with pytest.raises(ConfigError, match="one adapter at a time; 2 are active"):
        logits(model, TOKENS)


@pytest.mark.parametrize("task", [None, "CAUSAL_LM"])
def test_balance_losses_join_the_loss_in_training(task: str | None) -> None:
    model = wrapped(task_type=task, jitter=0.0)
    with torch.no_grad():
        alone = model(input_ids=TOKENS, labels=TOKENS).loss
        model.train()
        both = model(input_ids=TOKENS, labels=TOKENS).loss
    balance = tuner(model).context.balance_loss(tuner(model).lime_config.balance)
    assert balance is not None
    assert float(both - alone) == pytest.approx(float(balance), abs=1e-5)
    assert float(balance) > 1e-3


def test_balance_losses_every_third_step() -> None:
    model = wrapped(balance_every=3).train()
    seen = []
    for _ in range(6):
        model(input_ids=TOKENS, labels=TOKENS)
        seen.append(tuner(model).context.balance_loss((1, 1)) is not None)
    assert seen == [True, False, False, True, False, False]


def test_unloading_gives_the_backbone_back() -> None:
    model = wrapped()
    plain = model.unload()
    assert not [module for module in plain.modules() if isinstance(module, LimeLayer)]
    assert torch.equal(logits(plain, TOKENS), logits(backbone().eval(), TOKENS))
    assert not plain._forward_pre_hooks
    assert not plain._forward_hooks


def test_wrapped_again_the_new_layers_see_where_the_skill_is_active() -> None:
    model = checkpoint.wrap(wrapped().unload(), LimeConfig(routing=EXPERTS, r=4))
    randomise(model, 3)
    model.eval()
    found = logits(model, TOKENS, skill_active=torch.zeros(2, 9, dtype=torch.bool))
    assert torch.equal(found, logits(backbone().eval(), TOKENS))


# -- configs ---------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("target", ["input_layernorm", "mlp"])
def test_other_modules_than_linear_are_refused(target: str) -> None:
    with pytest.raises(ConfigError, match=r"LiME adapts torch\.nn\.Linear, torch\.nn\.Embedding and Conv1D, not"):
        get_peft_model(backbone(), LimeConfig(target_modules=[target]))


def test_more_experts_than_outputs_are_refused() -> None:
    with pytest.raises(ConfigError, match="64 experts need as many outputs to route by; a module has 32"):
        get_peft_model(backbone(), LimeConfig(routing=Routing(experts=64), target_modules=list(ATTENTION)))


def test_a_model_that_is_not_wrapped_is_named() -> None:
    with pytest.raises(ConfigError, match="expected a model wrapped with LimeConfig, found LlamaForCausalLM"):
        tuner(backbone())


# -- training --------------------------------------------------------------------------------------


def test_training_leaves_the_backbone_alone() -> None:
    plain = backbone()
    before = weights(plain)
    model = get_peft_model(plain, LimeConfig(routing=EXPERTS, r=4)).train()
    free = {name for name, p in model.named_parameters() if p.requires_grad}
    assert free == {name for name, _ in model.named_parameters() if "lime_" in name}
    optimizer = torch.optim.AdamW(parameter_groups(model, TrainingPlan(weight_decay=0.5)))
    start = checkpoint.adapter_digest(model)
    for _ in range(2):
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()
    assert checkpoint.adapter_digest(model) != start
    after = weights(model)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_parameter_groups() -> None:
    model = wrapped(kinds=KINDS, shared_vector=True)
    names = {id(p): name for name, p in model.named_parameters()}
    vectors, others = parameter_groups(model, TrainingPlan(vector_rate=0.5, shared_rate=0.25, weight_decay=0.125))
    assert (vectors["lr"], vectors["weight_decay"]) == (0.5, 0.0)
    assert (others["lr"], others["weight_decay"]) == (0.25, 0.125)
    kinds = [{names[id(p)].split(".")[-2] for p in group["params"]} for group in (vectors, others)]
    assert kinds[0] == {"lime_expert", "lime_gain", "lime_shift", "lime_rank", "lime_shared", "lime_gate"}
    assert kinds[1] == {"lime_A", "lime_B"}
    assert len(vectors["params"]) == 8 * 6
    assert len(others["params"]) == 8 * 2
    for layer in tuner(model).layers().values():
        layer.freeze_shared()
    assert [len(group["params"]) for group in parameter_groups(model, TrainingPlan())] == [8 * 6]
    scaled = parameter_groups(model, TrainingPlan(vector_rate=0.5, vector_scales={"gain": 4.0, "shift": 0.5}))
    rates = {names[id(p)].split(".")[-2]: group["lr"] for group in scaled for p in group["params"]}
    assert rates == {f"lime_{kind}": 0.5 for kind in ("expert", "rank", "shared", "gate")} | {
        "lime_gain": 2.0,
        "lime_shift": 0.25,
    }


@pytest.mark.parametrize("window", [1, 3])
def test_gradient_checkpointing_gives_the_same_gradients(window: int) -> None:
    model = wrapped(routing=Routing(experts=3, window=window), kinds=KINDS).train()
    mask = torch.ones_like(TOKENS)
    mask[1, 6:] = 0
    active = torch.arange(9)[None].expand(2, -1) > 3

    def gradients() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.zero_grad()
        torch.manual_seed(5)  # of the routing noise
        loss = model(input_ids=TOKENS, labels=TOKENS, attention_mask=mask, skill_active=active).loss
        loss.backward()
        return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    wanted_loss, wanted = gradients()
    model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    loss, found = gradients()
    assert torch.equal(loss, wanted_loss)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7)


# -- vectors ---------------------------------------------------------------------------------------


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
    checkpoint.set_vectors(model, checkpoint.get_vectors(model))  # its own, folded: nothing counts twice
    torch.testing.assert_close(logits(model, TOKENS), wanted, rtol=1e-5, atol=1e-5)


def test_the_digest_is_of_the_shared_adapter_alone() -> None:
    model, other = wrapped(), wrapped()
    checkpoint.set_vectors(other, {name: 2 * v for name, v in checkpoint.get_vectors(model).items()})
    assert checkpoint.adapter_digest(other) == checkpoint.adapter_digest(model)
    first: Any = next(iter(tuner(other).layers().values()))
    first.lime_A["default"].data[0, 0] += 1e-3
    assert checkpoint.adapter_digest(other) != checkpoint.adapter_digest(model)
    assert checkpoint.adapter_digest(wrapped(alpha=8.0)) != checkpoint.adapter_digest(model)


@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_the_table_has_the_order_of_graphs(architecture: str) -> None:
    model = wrapped(architecture, target_modules=["down_proj", "qkv_proj", "o_proj", "q_proj"])
    names = [module.name.rsplit(".", 1)[-1] for module in tuner(model).table().modules]
    assert names == 2 * (
        ["q_proj", "o_proj", "down_proj"] if architecture == "llama" else ["qkv_proj", "o_proj", "down_proj"]
    )
