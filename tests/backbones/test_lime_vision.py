"""Our vision-language family: what transformers does with it, and where a picture's features go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, LlamaConfig

from lime_edge.backbones.lime_vision import (
    TOKENS,
    LimeVisionConfig,
    LimeVisionForConditionalGeneration,
    pooling,
    register,
)

IMAGE = 16


def tiny(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    text = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
        tie_word_embeddings=True,
    )
    model: Any = LimeVisionForConditionalGeneration(LimeVisionConfig(text_config=text, projector_width=24))
    return model.eval()


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(3))


def prompt(pictures: int) -> torch.Tensor:
    return torch.tensor([[1, *[IMAGE] * TOKENS * pictures, 5, 6]])


def test_every_pooled_token_is_a_mean_and_the_windows_cover_the_grid() -> None:
    weights = pooling()
    assert weights.shape == (TOKENS, 49)
    torch.testing.assert_close(weights.sum(1), torch.ones(TOKENS))
    assert ((weights > 0).sum(1) == torch.tensor([49, *[9] * 9])).all()
    assert (weights[1:].sum(0) > 0).all()
    windows = (weights[1] > 0).view(7, 7)
    assert windows[:3, :3].all()


def test_features_stand_at_the_image_tokens_in_order(model: Any, pixels: torch.Tensor) -> None:
    ids = prompt(2)
    with torch.no_grad():
        features = model.get_image_features(pixels).pooler_output
        embedded = model.get_input_embeddings()(ids)
        embedded[0, 1 : 1 + 2 * TOKENS] = features.flatten(0, 1)
        wanted = model(inputs_embeds=embedded).logits
        found = model(input_ids=ids, pixel_values=pixels).logits
        swapped = model(input_ids=ids, pixel_values=pixels.flip(0)).logits
    assert features.shape == (2, TOKENS, 32)
    torch.testing.assert_close(found, wanted, atol=0, rtol=0)
    assert (swapped - found).abs().max() > 1e-4


def test_steps_on_the_cache_continue_the_full_forward(model: Any, pixels: torch.Tensor) -> None:
    ids = prompt(1)
    with torch.no_grad():
        full = model(input_ids=ids, pixel_values=pixels[:1]).logits[:, -1]
        begun = model(input_ids=ids[:, :-1], pixel_values=pixels[:1], use_cache=True)
        step = model(input_ids=ids[:, -1:], cache=begun.cache).logits[:, -1]
    torch.testing.assert_close(step, full, atol=1e-5, rtol=1e-5)


def test_a_saved_model_is_opened_by_the_auto_class_with_its_tied_head(
    model: Any, pixels: torch.Tensor, tmp_path: Path
) -> None:
    register()
    register()
    model.save_pretrained(tmp_path)
    again: Any = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32)
    again.eval()
    assert again.lm_head.weight is again.get_input_embeddings().weight
    assert again.get_decoder() is again.model.language_model
    with torch.no_grad():
        wanted = model(input_ids=prompt(1), pixel_values=pixels[:1]).logits
        found = again(input_ids=prompt(1), pixel_values=pixels[:1]).logits
    torch.testing.assert_close(found, wanted, atol=0, rtol=0)


def test_text_alone_is_the_language_model(model: Any) -> None:
    ids = torch.tensor([[1, 5, 6, 7]])
    with torch.no_grad():
        inner = model.model.language_model(input_ids=ids).last_hidden_state
        torch.testing.assert_close(model(input_ids=ids).logits, model.lm_head(inner), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("ids", "pictures", "said"),
    [
        (torch.tensor([[1, IMAGE, 5]]), 1, "1 image tokens for 10 features"),
        (None, 1, "expected one of input_ids and inputs_embeds"),
    ],
)
def test_pictures_without_their_tokens_are_refused(
    model: Any, pixels: torch.Tensor, ids: torch.Tensor | None, pictures: int, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        model(input_ids=ids, pixel_values=pixels[:pictures])
