"""LiME layers of random sizes, compared with the numpy definition in values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lime_edge.contract.routing import Routing
from lime_edge.contract.vector_kinds import KINDS
from lime_edge.method.config import LimeConfig
from lime_edge.method.forward_state import ForwardState
from lime_edge.method.layer import LimeLayer
from lime_edge.method.registry import VARIANTS
from tests import reference

ROWS, TOKENS = 2, 6
MARGIN = 1e-6  # a token this close to a threshold may be routed either way
TOLERANCE = 1e-5  # relative, float32 against float64
STEP = 1e-7  # of the central differences

Arrays = dict[str, Any]  # parameters and input of a layer in float64, by name
DEFINITIONS = {
    "lora": reference.lime_linear,
    "lora-fa": reference.lime_linear,
    "dora": reference.lime_linear,
    "slicefine": reference.lime_slicefine,
}


def make(
    routing: Routing, seed: int, rank_gate: bool, bias: bool, shared: bool, base: str = "lora", under: str = "linear"
) -> tuple[LimeLayer, ForwardState]:
    """A layer of odd sizes with no zero parameters, and its state."""
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
    found: dict[str, Any] = {name.lower(): parameter for name, parameter in layer.shared().items()}
    found |= {kind: getattr(layer, f"lime_{kind}")["a"] for kind in layer.lime_config["a"].kinds}
    if "a" in layer.lime_shared:
        found |= {"shared": layer.lime_shared["a"], "gate": layer.lime_gate["a"]}
    return found


def arrays(layer: LimeLayer, x: torch.Tensor) -> Arrays:
    """Arguments of the definition, in float64; token ids as one-hot vectors."""
    given = x if x.is_floating_point() else nn.functional.one_hot(x, layer.in_features)
    return {name: value.detach().double().numpy() for name, value in (leaves(layer) | {"x": given}).items()}


def defined(layer: LimeLayer, found: Arrays) -> tuple[Any, Any]:
    """Output of the definition, [B, S, H], and which tokens are not close to a threshold, [B, S]."""
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
    """Compare values and gradients of one layer with the definition."""
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


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


def clear(logits: Any, routing: Routing, margin: float = MARGIN) -> Any:
    """Which tokens are more than the margin away from every threshold: logits [S, E] -> [S]."""
    kept = []
    for token in logits:
        prob = np.sort(reference.softmax(token / routing.temperature))
        gaps = [1.0]
        if routing.mode in ("hard", "auto") and routing.keep < routing.experts:
            gaps.append(prob[-routing.keep] - prob[-routing.keep - 1])
        if routing.mode == "auto":
            gaps += list(np.abs(prob - routing.theta * prob[-1]))
        kept.append(min(gaps) > margin)
    return np.array(kept)
