"""Features in the arguments of a call: where they stand, and that they are what the model itself would put there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lime_edge.errors import ConfigError
from lime_edge.method.features import with_features
from tests.backbones.test_lime_vision import IMAGE, prompt, tiny
from tests.support.tiny_training import EXPERTS, ids, logits, randomise, wrapped


@pytest.fixture(scope="module")
def model() -> Any:
    return wrapped()


def places(*rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows)


def test_features_replace_the_embeddings_at_their_places(model: Any) -> None:
    tokens, features = ids(2, 4), torch.randn(3, model.config.hidden_size)
    embedded = model.get_input_embeddings()(tokens).clone()
    embedded[0, 1], embedded[0, 2], embedded[1, 0] = features[2], features[0], features[1]
    at = places([-1, 2, 0, -1], [1, -1, -1, -1])
    given = with_features(model.base_model.model, {"input_ids": tokens, "use_cache": False}, features, at)
    assert set(given) == {"inputs_embeds", "use_cache"}
    torch.testing.assert_close(given["inputs_embeds"], embedded, atol=0, rtol=0)
    with torch.no_grad():
        wanted = model(inputs_embeds=embedded).logits
    found = logits(model, tokens, features=features, feature_ids=at)
    torch.testing.assert_close(found, wanted, atol=0, rtol=0)
    assert (found - logits(model, tokens)).abs().max() > 1e-3


def test_a_wrapped_model_gives_what_its_own_tower_gives() -> None:
    from lime_edge.method.config import LimeConfig
    from lime_edge.training import checkpoint

    inner = tiny()
    outer = checkpoint.wrap(inner, LimeConfig(r=2, routing=EXPERTS, target_modules=["o_proj", "up_proj"])).eval()
    randomise(outer, 1)
    pixels = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    tokens = prompt(1)
    with torch.no_grad():
        features = inner.get_image_features(pixels).pooler_output[0]
        wanted = outer(input_ids=tokens, pixel_values=pixels).logits
        at = torch.where(tokens == IMAGE, (tokens == IMAGE).cumsum(1) - 1, -1)
        found = outer(input_ids=tokens, features=features, feature_ids=at).logits
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_virtual_tokens_stand_in_front_of_features() -> None:
    model = wrapped(base="prompt")
    tokens, features = ids(1, 3), torch.randn(1, model.config.hidden_size)
    plain = logits(model, tokens)
    at = places([-1, 0, -1])
    found = logits(model, tokens, features=features, feature_ids=at)
    assert found.shape == plain.shape
    torch.testing.assert_close(found[:, 0], plain[:, 0], atol=1e-6, rtol=1e-5)
    assert (found[:, 1] - plain[:, 1]).abs().max() > 1e-3


def test_features_learn_nothing_but_pass_gradients(model: Any) -> None:
    features = torch.randn(1, model.config.hidden_size, requires_grad=True)
    model(input_ids=ids(1, 2), features=features, feature_ids=places([0, -1])).logits.sum().backward()
    assert features.grad is not None
    assert features.grad.abs().max() > 0
    model.zero_grad()


def test_calls_that_cannot_take_features_are_refused(model: Any) -> None:
    inner = model.base_model.model
    with pytest.raises(ConfigError, match="which this call lacks"):
        with_features(inner, {"inputs_embeds": None}, torch.zeros(1, 4), places([0]))
    with pytest.raises(ConfigError, match="names the feature 3; the call has 2"):
        with_features(inner, {"input_ids": ids(1, 1)}, torch.zeros(2, 4), places([3]))
