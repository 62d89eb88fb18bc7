"""The LiME layer against its definition, in values and in gradients; what its output may depend on."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import DynamicCache
from transformers.pytorch_utils import Conv1D

from lime_edge.contract.routing import Mode, Routing
from lime_edge.contract.vector_kinds import KINDS
from lime_edge.errors import ConfigError
from lime_edge.method.config import LimeConfig
from lime_edge.method.forward_state import ForwardState
from lime_edge.method.layer import LimeLayer
from lime_edge.method.registry import VARIANTS
from lime_edge.method.routing import select
from lime_edge.method.variants import LimeLora
from lime_edge.training.checkpoint import tuner
from tests import reference
from tests.method.test_routing import MODES, clear
from tests.support.tiny_training import EXPERTS, ids, logits, wrapped

ROWS, TOKENS = 2, 6
TOLERANCE = 1e-5  # relative, float32 against float64
STEP = 1e-7  # of the central differences

Arrays = dict[str, Any]  # every number of a layer, float64, by name
DEFINITIONS = {
    "lora": reference.lime_linear,
    "lora-fa": reference.lime_linear,
    "dora": reference.lime_linear,
    "slicefine": reference.lime_slicefine,
}


def make(
    routing: Routing, seed: int, rank_gate: bool, bias: bool, shared: bool, base: str = "lora", under: str = "linear"
) -> tuple[LimeLayer, ForwardState]:
    """A layer of odd sizes in which nothing is zero."""
    rng = np.random.default_rng(seed)
    inputs, outputs, rank = 3 + 2 * int(rng.integers(4)), 9 + 2 * int(rng.integers(4)), 1 + 2 * int(rng.integers(3))
    torch.manual_seed(seed)
    kinds = KINDS if rank_gate else KINDS[:3]
    rank = max(rank, routing.experts) if base == "slicefine" else rank
    config = LimeConfig(base=base, r=rank, alpha=1.5 * rank, routing=routing, kinds=kinds, shared_vector=shared)
    context = ForwardState()
    modules: dict[str, Callable[[], nn.Module]] = {
        "linear": lambda: nn.Linear(inputs, outputs, bias=bias),
        "conv1d": lambda: Conv1D(outputs, inputs),  # type: ignore[no-untyped-call]
        "embedding": lambda: nn.Embedding(inputs, outputs),
    }
    layer: LimeLayer = VARIANTS[base](modules[under](), "a", config, context)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.7)
    context.begin(None)
    return layer.eval(), context


def leaves(layer: LimeLayer) -> dict[str, Any]:
    """Every parameter of the layer by its name in the definition."""
    held: dict[str, Any] = {name.lower(): parameter for name, parameter in layer.shared().items()}
    held |= {kind: getattr(layer, f"lime_{kind}")["a"] for kind in layer.lime_config["a"].kinds}
    if "a" in layer.lime_shared:
        held |= {"shared": layer.lime_shared["a"], "gate": layer.lime_gate["a"]}
    return held


def arrays(layer: LimeLayer, x: torch.Tensor) -> Arrays:
    """What the definition takes, in float64; token ids one-hot."""
    given = x if x.is_floating_point() else nn.functional.one_hot(x, layer.in_features)
    return {name: value.detach().double().numpy() for name, value in (leaves(layer) | {"x": given}).items()}


def defined(layer: LimeLayer, found: Arrays) -> tuple[Any, Any]:
    """Output [B, S, H] by the definition, and which tokens are clear of every threshold, [B, S]."""
    config = layer.lime_config["a"]
    base: Any = layer.base_layer
    weight, bias = base.weight.detach().double().numpy(), getattr(base, "bias", None)
    weight = weight if isinstance(base, nn.Linear) else weight.T
    bias = None if bias is None else bias.detach().double().numpy()
    adapter = {name.lower(): found[name.lower()] for name in layer.shared()}
    definition: Any = DEFINITIONS[config.base]
    if config.base != "slicefine":
        adapter["scale"] = config.scaling
    vectors: Arrays = {kind: found[kind] for kind in config.kinds}
    if "shared" in found:
        vectors["expert"] = vectors["expert"] + found["gate"] * found["shared"]
    outputs, fine = [], []
    for row in found["x"]:
        out, seen = definition(row, weight, bias, vectors=vectors, routing=config.routing, **adapter)
        mean = reference.window_mean(seen, np.zeros((0, config.routing.experts)), config.routing.window)
        outputs.append(out)
        fine.append(clear(mean, config.routing))
    return np.stack(outputs), np.stack(fine)


def slope(loss: Callable[[Arrays], float], at: Arrays, name: str, direction: Any) -> float:
    """Central difference of the loss along a direction of one array."""
    ends = [loss({**at, name: at[name] + sign * STEP * direction}) for sign in (1, -1)]
    return (ends[0] - ends[1]) / (2 * STEP)


def check(layer: LimeLayer, seed: int) -> None:
    """Values and gradients of one layer against the definition."""
    rng = np.random.default_rng([seed, 1])
    x = torch.tensor(rng.standard_normal((ROWS, TOKENS, layer.in_features)), dtype=torch.float32, requires_grad=True)
    if isinstance(layer.base_layer, nn.Embedding):
        x = torch.tensor(rng.integers(layer.in_features, size=(ROWS, TOKENS)))
    at = arrays(layer, x)
    wanted, fine = defined(layer, at)
    assert fine.mean() > 0.8
    found = layer(x)
    apart = np.abs(found.detach().double().numpy() - wanted)[fine].max()
    assert apart <= TOLERANCE * np.abs(wanted).max()

    pull = rng.standard_normal(wanted.shape) * fine[..., None]  # the loss is <pull, output>
    (found * torch.tensor(pull, dtype=torch.float32)).sum().backward()
    moved = {name: leaf for name, leaf in (leaves(layer) | {"x": x}).items() if leaf.requires_grad}
    for name, leaf in moved.items():
        gradient = leaf.grad.double().numpy()
        direction = rng.standard_normal(gradient.shape)
        expected = slope(lambda where: float((pull * defined(layer, where)[0]).sum()), at, name, direction)
        bound = TOLERANCE * float(np.linalg.norm(gradient) * np.linalg.norm(direction))
        assert abs(float((gradient * direction).sum()) - expected) <= bound, name


@pytest.mark.parametrize("rank_gate", [False, True])
@pytest.mark.parametrize("window", [1, 2, 3, 4])
@pytest.mark.parametrize("experts", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", MODES)
def test_layer_is_the_definition(mode: Mode, experts: int, window: int, rank_gate: bool) -> None:
    routing = Routing(experts=experts, mode=mode, window=window, top_k=1 + window % 3)
    seed = 10 * window + experts
    layer, _ = make(routing, seed, rank_gate, bias=experts in (1, 4), shared=window in (1, 4))
    check(layer, seed)


@pytest.mark.parametrize(("bias", "shared"), [(False, False), (False, True), (True, False), (True, True)])
def test_layer_is_the_definition_over_seeds(bias: bool, shared: bool) -> None:
    for seed in range(100, 104):
        layer, _ = make(Routing(window=2), seed, True, bias, shared)
        check(layer, seed)


def test_a_wrong_gradient_is_noticed() -> None:
    layer, _ = make(Routing(), 0, False, False, False)
    layer.lime_gain["a"].register_hook(lambda gradient: gradient * (1 + 1e-3))
    with pytest.raises(AssertionError, match="gain"):
        check(layer, 0)


def test_noise_is_for_training_alone() -> None:
    layer, context = make(EXPERTS, 0, False, False, False)
    x = torch.randn(2, 5, layer.in_features)
    assert torch.equal(layer(x), layer(x))
    layer.train()
    assert not torch.equal(layer(x), layer(x))
    assert context.balance_loss((0.1, 0.01)) is not None
    layer.lime_config["a"].jitter = 0.0
    assert torch.equal(layer(x), layer(x))
    assert torch.equal(layer(x), layer.eval()(x))


def test_balance_losses_of_a_layer_are_the_definition() -> None:
    layer, context = make(EXPERTS, 0, False, False, False)
    layer.lime_config["a"].jitter = 0.0
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    context.begin(mask)
    layer.train()
    x = torch.randn(2, 6, layer.in_features)
    layer(x)
    at, probs = arrays(layer, x), []
    base: Any = layer.base_layer
    for row in at["x"]:
        y = row @ base.weight.detach().double().numpy().T
        d = layer.lime_config["a"].scaling * row @ at["a"].T @ at["b"].T
        seen = [reference.evidence(*pair, EXPERTS) for pair in zip(y, d, strict=True)]
        probs.append([reference.softmax(one / EXPERTS.temperature) for one in seen])
    importance, divergence = reference.balance_losses(np.array(probs), mask.bool().numpy())
    found = context.balance_loss((0.1, 0.01))
    assert found is not None
    assert float(found.detach()) == pytest.approx(0.1 * importance + 0.01 * divergence, rel=1e-4)


def test_bfloat16_input_gives_bfloat16_output_and_float32_gradients() -> None:
    layer, _ = make(EXPERTS, 0, True, True, True)
    layer.base_layer.to(torch.bfloat16)
    out = layer(torch.randn(2, 3, layer.in_features, dtype=torch.bfloat16))
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert isinstance(layer, LimeLora)
    assert layer.lime_A["a"].grad.dtype == torch.float32


# -- inside a language model ---------------------------------------------------------------------


@pytest.fixture(scope="module", params=[1, 2, 3, 4], ids=lambda n: f"window{n}")
def model(request: pytest.FixtureRequest) -> Any:
    return wrapped(routing=replace(EXPERTS, window=request.param), kinds=KINDS)


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(model: Any, side: str) -> None:
    tokens, pad = ids(2, 7), torch.full((2, 5), 2)
    wanted = logits(model, tokens)
    left = side == "left"
    padded = torch.cat([pad, tokens] if left else [tokens, pad], 1)
    mask = torch.zeros_like(padded)
    where = slice(5, 12) if left else slice(0, 7)
    mask[:, where] = 1
    places = (mask.cumsum(1) - 1).clamp_min(0)
    close(logits(model, padded, attention_mask=mask, position_ids=places)[:, where], wanted)
    # the mask may also come by position
    with torch.no_grad():
        close(model.base_model(padded, mask, places).logits[:, where], wanted)


def test_a_row_alone_is_the_row_in_a_batch(model: Any) -> None:
    tokens = ids(4, 9)
    together = logits(model, tokens)
    for row in range(4):
        close(logits(model, tokens[row : row + 1])[0], together[row])


def test_rows_of_different_length_in_one_batch(model: Any) -> None:
    lengths, longest = (3, 8, 5), 8
    rows = [ids(1, n, seed=n)[0] for n in lengths]
    padded, mask = torch.full((3, longest), 2), torch.zeros(3, longest, dtype=torch.long)
    for i, row in enumerate(rows):
        padded[i, longest - len(row) :] = row
        mask[i, longest - len(row) :] = 1
    places = (mask.cumsum(1) - 1).clamp_min(0)
    found = logits(model, padded, attention_mask=mask, position_ids=places)
    for i, row in enumerate(rows):
        close(found[i, longest - len(row) :], logits(model, row[None])[0])


@pytest.mark.parametrize("prefill", [1, 2, 5])
def test_cached_steps_are_the_full_forward(model: Any, prefill: int) -> None:
    tokens = ids(2, 9)
    wanted = logits(model, tokens)
    cache = DynamicCache(config=model.config)
    parts = [logits(model, tokens[:, :prefill], cache=cache, use_cache=True)]
    for at in range(prefill, 9):
        parts.append(logits(model, tokens[:, at : at + 1], cache=cache, use_cache=True))
    close(torch.cat(parts, 1), wanted)


def test_cached_steps_of_a_padded_batch(model: Any) -> None:
    tokens = ids(2, 9)
    wanted = logits(model, tokens)
    padded = torch.cat([torch.full((2, 2), 2), tokens], 1)
    mask = torch.ones_like(padded)
    mask[:, :2] = 0
    places = (mask.cumsum(1) - 1).clamp_min(0)
    cache, parts = DynamicCache(config=model.config), []
    for start, stop in ((0, 6), (6, 7), (7, 10), (10, 11)):
        fed = {"attention_mask": mask[:, :stop], "position_ids": places[:, start:stop], "cache": cache}
        parts.append(logits(model, padded[:, start:stop], use_cache=True, **fed))
    close(torch.cat(parts, 1)[:, 2:], wanted)


def test_two_caches_at_once_do_not_mix(model: Any) -> None:
    tokens = {seed: ids(1, 6, seed) for seed in (0, 1)}
    caches = {seed: DynamicCache(config=model.config) for seed in (0, 1)}
    for seed in (0, 1):
        logits(model, tokens[seed][:, :5], cache=caches[seed], use_cache=True)
    for seed in (0, 1):
        found = logits(model, tokens[seed][:, 5:], cache=caches[seed], use_cache=True)
        close(found[:, 0], logits(model, tokens[seed])[:, 5])


def test_tokens_before_the_response_are_bit_for_bit_the_base(model: Any) -> None:
    tokens = ids(2, 9)
    active = torch.zeros(2, 9, dtype=torch.bool)
    active[0, 4:] = active[1, 6:] = True
    found = logits(model, tokens, skill_active=active)
    with model.disable_adapter():
        base = logits(model, tokens)
    assert torch.equal(found[~active], base[~active])
    assert bool((found[active] != base[active]).any(-1).all())
    assert not torch.allclose(found, logits(model, tokens), atol=1e-3)


def test_the_next_call_forgets_where_the_skill_was_active(model: Any) -> None:
    tokens = ids(2, 5)
    wanted = logits(model, tokens)
    logits(model, tokens, skill_active=torch.zeros(2, 5, dtype=torch.bool))
    assert torch.equal(logits(model, tokens), wanted)


def test_a_skill_of_zeros_is_bit_for_bit_the_base(model: Any) -> None:
    zero = wrapped(routing=tuner(model).lime_config.routing)
    for layer in tuner(zero).layers().values():
        for kind in ("expert", "gain", "shift"):
            torch.nn.init.zeros_(getattr(layer, f"lime_{kind}")["default"])
    tokens = ids(2, 9)
    found = logits(zero, tokens)
    with zero.disable_adapter():
        assert torch.equal(found, logits(zero, tokens))


def test_later_tokens_and_other_rows_change_nothing(model: Any) -> None:
    tokens = ids(2, 9)
    other = tokens.clone()
    other[0, 6:] = 7
    other[1] = 8
    close(logits(model, other)[0, :6], logits(model, tokens)[0, :6])


def test_batch_scale_lets_the_future_in_as_published() -> None:
    model = wrapped(routing_scale="batch")
    tokens = ids(1, 9)
    other = tokens.clone()
    other[0, 6:] = 7
    apart = (logits(model, other)[0, :6] - logits(model, tokens)[0, :6]).abs().max()
    assert float(apart) > 1e-3


def test_gradients_reach_every_parameter_but_the_backbone() -> None:
    model = wrapped(kinds=KINDS, shared_vector=True).train()
    tokens = ids(2, 9)
    model(input_ids=tokens, labels=tokens).loss.backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())}
    assert without == {name for name, _ in model.named_parameters() if "lime_" not in name}


def test_selection_of_one_expert_is_free() -> None:
    layer, context = make(Routing(experts=1), 0, False, False, False)
    layer.train()
    layer(torch.randn(1, 2, layer.in_features))
    assert context.balance_loss((1, 1)) is None
    assert select(torch.zeros(1, 1), Routing(experts=1))[0].item() == 1


def test_a_copied_cache_goes_on_by_itself(model: Any) -> None:
    tokens = ids(1, 7)
    cache = DynamicCache(config=model.config)
    logits(model, tokens[:, :5], cache=cache, use_cache=True)
    twin = deepcopy(cache)
    logits(model, ids(1, 2, 9), cache=cache, use_cache=True)
    found = logits(model, tokens[:, 5:], cache=twin, use_cache=True)
    close(found, logits(model, tokens)[:, 5:])


def test_a_cache_that_the_model_made_itself(model: Any) -> None:
    tokens = ids(1, 7)
    with torch.no_grad():
        cache = model(input_ids=tokens[:, :5], use_cache=True).cache
    close(logits(model, tokens[:, 5:], cache=cache, use_cache=True), logits(model, tokens)[:, 5:])


def test_a_cache_under_its_former_name(model: Any) -> None:
    tokens = ids(1, 7)
    cache = DynamicCache(config=model.config)
    logits(model, tokens[:, :5], cache=cache, use_cache=True)
    with pytest.warns(FutureWarning, match="Use `cache`"):
        found = logits(model, tokens[:, 5:], past_key_values=cache, use_cache=True)
    close(found, logits(model, tokens)[:, 5:])


def test_windows_refuse_a_cache_without_evidence() -> None:
    model = wrapped(routing=replace(EXPERTS, window=2))
    cache = DynamicCache(config=model.config)
    with model.disable_adapter():
        logits(model, ids(1, 5), cache=cache, use_cache=True)
    with pytest.raises(ConfigError, match="holds 5 tokens"):
        logits(model, ids(1, 1), cache=cache, use_cache=True)
    cropped = DynamicCache(config=model.config)
    logits(model, ids(1, 5), cache=cropped, use_cache=True)
    cropped.crop(-1)
    with pytest.raises(ConfigError, match="holds 4 tokens"):
        logits(model, ids(1, 1), cache=cropped, use_cache=True)
