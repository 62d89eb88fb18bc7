"""LiME through PEFT's own calls: wrap, save, load, switch, disable and train; and what is rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
from tests.support.tiny_training import EXPERTS, backbone, ids, logits, randomise, wrapped

# PEFT uses a deprecated name of transformers; lime_edge.training.checkpoint hides the warning, PEFT's calls do not.
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


def test_more_experts_than_outputs_are_refused() -> None:
    with pytest.raises(ConfigError, match="64 experts need as many outputs to route by; a module has 32"):
        get_peft_model(backbone(), LimeConfig(routing=Routing(experts=64), target_modules=list(ATTENTION)))


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


@pytest.mark.parametrize("window", [1, 3])
def test_gradient_checkpointing_gives_the_same_gradients(window: int) -> None:
    model = wrapped(routing=Routing(experts=3, window=window), kinds=KINDS).train()
    mask = torch.ones_like(TOKENS)
    mask[1, 6:] = 0
    active = torch.arange(9)[None].expand(2, -1) > 3

    def gradients() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.zero_grad()
        torch.manual_seed(5)  # for the routing noise
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


@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_the_table_has_the_order_of_graphs(architecture: str) -> None:
    model = wrapped(architecture, target_modules=["down_proj", "qkv_proj", "o_proj", "q_proj"])
    names = [module.name.rsplit(".", 1)[-1] for module in tuner(model).table().modules]
    assert names == 2 * (
        ["q_proj", "o_proj", "down_proj"] if architecture == "llama" else ["qkv_proj", "o_proj", "down_proj"]
    )
