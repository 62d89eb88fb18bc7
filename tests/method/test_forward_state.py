"""State shared by the layers: key-value caches, active tokens and balance losses."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from lime_edge.errors import ConfigError
from tests import reference
from tests.support.layer_case import arrays, close, make
from tests.support.tiny_training import EXPERTS, ids, logits, wrapped


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
