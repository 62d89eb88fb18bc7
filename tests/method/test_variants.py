"""Every base equals its definition, and gives the same numbers from training to the runtime."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel

from lime_edge import Runtime, read_skill
from lime_edge.contract.routing import MODES, Routing
from lime_edge.contract.vector_kinds import KINDS
from lime_edge.errors import ConfigError
from lime_edge.method.config import ATTENTION, LimeConfig
from lime_edge.method.registry import VARIANTS
from lime_edge.runtime.decoding.kv_cache import Cache
from lime_edge.runtime.decoding.loop import skill_rows, with_prefix
from lime_edge.runtime.text.prompts import Tokens
from lime_edge.training import checkpoint
from lime_edge.training.checkpoint import tuner
from lime_edge.training.export_checkpoint import export_checkpoint
from lime_edge.training.learn_skill import Recipe, learn, prepare
from lime_edge.training.plan import TrainingPlan
from lime_edge.training.train_adapter import train
from lime_edge.training.trainer import parameter_groups
from tests import reference
from tests.support.layer_case import check, make
from tests.support.paths import DOCS
from tests.support.runtime_models import Plain
from tests.support.tiny_training import EXPERTS, backbone, backbone_dir, ids, logits, tasks, wrapped

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

ALL = list(VARIANTS)
LINEAR = [base for base in VARIANTS if base != "prompt"]
PLAN = TrainingPlan(steps=3, batch=4, vector_rate=0.1, shared_rate=1e-2)
TOKENS = ids(2, 9)


@pytest.mark.parametrize("under", ["linear", "conv1d", "embedding"])
@pytest.mark.parametrize("base", LINEAR)
def test_a_base_is_its_definition(base: str, under: str) -> None:
    for seed, (mode, experts) in enumerate([(mode, experts) for mode in MODES for experts in (1, 4)]):
        routing = Routing(experts=experts, mode=mode, window=1 + seed % 3)
        layer, _ = make(routing, seed, seed % 2 == 0, seed % 3 == 0, seed % 4 == 1, base, under)
        if "lime_A" in layer.fixed_names:  # check also the gradients of fixed parameters
            layer.frozen_peft_weight_names.clear()
            layer.set_adapter("a")
        check(layer, seed)


def test_dora_starts_as_the_backbone_and_slicefine_at_its_own_rows() -> None:
    torch.manual_seed(0)
    model = checkpoint.wrap(backbone(), LimeConfig(base="dora", r=4, routing=EXPERTS))
    for layer in tuner(model).layers().values():
        assert torch.equal(layer.standing()["gain"], torch.zeros(layer.out_features))  # g is exactly 1
    model = checkpoint.wrap(backbone(), LimeConfig(base="slicefine", r=4, routing=EXPERTS))
    for name, layer in tuner(model).layers().items():
        weight = backbone().get_submodule(name).weight
        assert torch.equal(layer.shared()["rows"], weight[:4])


@pytest.mark.parametrize("base", ALL)
def test_saved_and_loaded_it_answers_bit_for_bit_the_same(base: str, tmp_path: Path) -> None:
    model = wrapped(base=base, kinds=KINDS if base in LINEAR else KINDS[:3])
    model.save_pretrained(str(tmp_path), save_embedding_layers=False)
    again = PeftModel.from_pretrained(backbone(), str(tmp_path)).eval()
    assert torch.equal(logits(again, TOKENS), logits(model, TOKENS))
    plain = logits(backbone().eval(), TOKENS)
    with model.disable_adapter():
        assert torch.equal(logits(model, TOKENS), plain)
    assert not torch.allclose(logits(model, TOKENS), plain, atol=1e-2)


@pytest.mark.parametrize("base", ALL)
def test_the_digest_covers_every_shared_parameter(base: str) -> None:
    model = wrapped(base=base)
    digest = checkpoint.adapter_digest(model)
    layer = next(iter(tuner(model).layers().values()))
    for name, held in layer.shared().items():
        first = held.data.ravel()[0].clone()
        held.data.ravel()[0] += 1e-3
        assert checkpoint.adapter_digest(model) != digest, name
        held.data.ravel()[0] = first
    assert checkpoint.adapter_digest(model) == digest
    checkpoint.set_vectors(model, {name: 2 * v for name, v in checkpoint.get_vectors(model).items()})
    assert checkpoint.adapter_digest(model) == digest


@pytest.mark.parametrize("base", ALL)
def test_what_is_trained_and_what_is_not(base: str) -> None:
    model = wrapped(base=base).train()
    fixed = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    assert {name.split(".")[-2] for name in fixed if "lime_" in name} == set(VARIANTS[base].fixed_names)
    optimizer = torch.optim.AdamW(parameter_groups(model, TrainingPlan(weight_decay=0.5)))
    model(input_ids=TOKENS, labels=TOKENS).loss.backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and not bool(p.grad.any())]
    assert not without
    optimizer.step()
    assert all(torch.equal(p, fixed[name]) for name, p in model.named_parameters() if name in fixed)
    model.add_adapter("other", LimeConfig(base=base, r=4, routing=EXPERTS))
    model.set_adapter("default")  # PEFT unfreezes all parameters of the adapter that it activates
    free = {name.split(".")[-2] for name, p in model.named_parameters() if p.requires_grad}
    assert not free & set(VARIANTS[base].fixed_names)


@pytest.mark.parametrize("base", ALL)
def test_few_bits_of_the_backbone_free_nothing(base: str) -> None:
    """For a half-precision backbone PEFT recreates the adapter's parameters in float32."""
    config = LimeConfig(base=base, r=4, routing=EXPERTS, target_modules=list(ATTENTION))
    model = checkpoint.wrap(backbone(dtype=torch.bfloat16), config)
    held = {n: p for n, p in model.named_parameters() if "lime_" in n}
    assert {p.dtype for p in held.values()} == {torch.float32}
    assert {n.split(".")[-2] for n, p in held.items() if not p.requires_grad} == set(VARIANTS[base].fixed_names)


@pytest.mark.parametrize("base", LINEAR)
def test_a_skill_of_zeros_is_the_backbone(base: str) -> None:
    model = wrapped(base=base)
    checkpoint.set_vectors(model, {name: 0 * v for name, v in checkpoint.get_vectors(model).items()})
    torch.testing.assert_close(logits(model, TOKENS), logits(backbone().eval(), TOKENS), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])  # without and with biases; tied and not
@pytest.mark.parametrize("base", ALL)
def test_the_whole_way(base: str, architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, save, learn, export and run: torch, graph and runtime agree; without a skill they equal the backbone."""
    monkeypatch.setattr("lime_edge.training.backbone.training_dtype", lambda: torch.float32)
    made, file, exported = tmp_path / "checkpoint", tmp_path / "one.lime", tmp_path / "model"
    source = str(backbone_dir(architecture))
    config = LimeConfig(base=base, r=4, routing=Routing(experts=3, window=2), target_modules=list(ATTENTION))
    figures = train([str(tasks() / "tasks")], source, made, config, PLAN)
    assert figures["steps"] == PLAN.steps
    recipe = Recipe("one", experts=3, rank_gate=base in LINEAR)
    learn(tasks() / "skill", made, file, recipe, PLAN)
    export_checkpoint(made, exported, "fp32", rank_gate=base in LINEAR)

    model, _, _ = prepare(made, recipe, torch.float32)
    checkpoint.set_vectors(model, read_skill(file).tensors)
    tokens = ids(1, 40)
    wanted = logits(model.eval(), tokens)[0].numpy()
    virtual = list(range(300, 304)) if base == "prompt" else []  # ids beyond the vocabulary
    found = Plain(exported, file)(virtual + tokens[0].tolist())[len(virtual) :]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    with model.disable_adapter():
        bare = logits(model, tokens)[0].numpy()
    base_found = Plain(exported)(tokens[0].tolist())
    np.testing.assert_allclose(base_found, bare, rtol=0, atol=1e-5 * np.abs(bare).max())
    assert np.abs(wanted - bare).max() > 0.05

    runtime = Runtime.load(exported, threads=1)
    for path in (file, made / "general.lime"):
        runtime.load_skill(path, prove=True)  # golden prompts from torch, with and without the skill
    with runtime._registry.lease(["one"]) as lease:  # with the operators that the runtime uses
        given = with_prefix(Tokens(tokens[0].numpy(), 39), lease.applied[0], runtime._graph)
        cache = Cache(runtime._graph, lease.array, 1, 64)
        last, _ = cache.prefill(0, given.ids, skill_rows(given, lease.applied[0]))
        np.testing.assert_allclose(last, wanted[-1], rtol=0, atol=1e-5 * np.abs(wanted).max())
    hello = [{"role": "user", "content": "Hello"}]  # messages: the choices of the skill constrain plain requests
    ids_of = list(runtime.generate(hello, skill="one", max_new_tokens=8).token_ids)
    prompt = runtime._text.tokens("Hello")
    assert ids_of == Plain(exported, file).answer(virtual + prompt.ids.tolist(), prompt.boundary, len(ids_of))


@pytest.mark.parametrize("base", ALL)
def test_one_expert_is_left_out_where_nothing_rests_on_it(base: str, tmp_path: Path) -> None:
    made, file, model = tmp_path / "checkpoint", tmp_path / "one.lime", tmp_path / "model"
    config = LimeConfig(base=base, r=4, routing=EXPERTS, target_modules=list(ATTENTION))
    train([str(tasks() / "tasks")], str(backbone_dir()), made, config, PLAN)
    skill, _ = learn(tasks() / "skill", made, file, Recipe("one"), PLAN)
    spares = base in ("lora", "lora-fa")
    assert set(skill.kinds) == (
        {"prefix"} if base == "prompt" else {"gain", "shift"} | set(() if spares else ("expert",))
    )
    export_checkpoint(made, model, "fp32", expert=not spares)
    Runtime.load(model, threads=1).load_skill(file, prove=True)
    if spares:
        return
    with pytest.raises(ConfigError, match=f"skills on {base} need expert vectors"):
        export_checkpoint(made, tmp_path / "less", "fp32", expert=False)
    with pytest.raises(ConfigError) as caught:
        learn(tasks() / "skill", made, tmp_path / "less.lime", Recipe("less", expert=False), PLAN)
    assert list(caught.value.faults) == [f"expert is False; {base} needs expert vectors"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("less")]


def test_slicefine_needs_a_row_for_every_expert() -> None:
    with pytest.raises(ConfigError, match=r"r is 2; expected 3 \(E\) to 64"):
        checkpoint.wrap(backbone(), LimeConfig(base="slicefine", r=2, routing=EXPERTS))
    assert LimeConfig(base="slicefine").routing.gamma == 1  # what it routes by


def test_the_base_of_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the code of docs/method.md, from training to the runtime."""
    page = (DOCS / "method.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "vera_of_the_page.py").write_text(code, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(VARIANTS, "vera", None)  # removed after the test
    page_base = importlib.import_module("vera_of_the_page").LimeVera
    model = wrapped(base="vera", kinds=KINDS)
    layer = next(iter(tuner(model).layers().values()))
    assert type(layer) is page_base
    x = torch.randn(1, 5, layer.in_features)
    a, b, scale = (part.detach().double().numpy() for part in map(torch.as_tensor, layer.low_rank()))
    vectors: dict[str, Any] = {kind: values.detach().double().numpy() for kind, values in layer.vectors().items()}
    weight = layer.base_layer.get_parameter("weight").detach().double().numpy()
    routing = layer.lime_config["default"].routing
    wanted, _ = reference.lime_linear(x[0].double().numpy(), weight, None, a, b, float(scale), vectors, routing)
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), wanted, rtol=0, atol=1e-4)
    test_the_whole_way("vera", "llama", tmp_path, monkeypatch)
