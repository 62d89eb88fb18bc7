"""Exported models that see, of every family: against transformers, against the builder's graph, and in steps."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lime_edge.contract.model import ModelContract
from lime_edge.contract.vision import read_vision
from lime_edge.errors import ExportError
from lime_edge.exporters import AdaptedModule, Precision, export
from lime_edge.exporters.towers.saved_decoder import save_decoder
from lime_edge.exporters.towers.vision_model import VisionModel
from tests import reference
from tests.exporters.export_case import build_reference, contents, error, make_session
from tests.exporters.towers.tower_case import checkpoint, contract_of, torch_model
from tests.exporters.vision_case import Array, decoder_adapter, exported, pictures, prompt, run
from tests.support.vision.tiny_vision import FAMILIES

TOLERANCE = 1e-5  # of the largest logit; fp32 against fp32 in another order


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_with_pictures_are_those_of_transformers(name: str) -> None:
    found = run(exported(name).session(), prompt(name), **pictures(prompt(name)))["logits"]
    assert error(found, prompt(name).logits) < TOLERANCE


@pytest.mark.parametrize("precision", ["fp32", "int4"])
@pytest.mark.parametrize("name", FAMILIES)
def test_without_pictures_every_bit_is_the_builders(name: str, precision: Precision, tmp_path: Path) -> None:
    save_decoder(torch_model(name), checkpoint(name), tmp_path / "decoder", contract_of(name).rotary_3d)
    build_reference(tmp_path / "decoder", tmp_path / "plain", precision)
    plain, session = make_session(tmp_path / "plain"), exported(name, precision).session()
    text = prompt(name)
    expected, found = run(plain, text), run(session, text)
    assert all(np.array_equal(expected[key], found[key]) for key in expected)
    asked = run(session, text, features=text.features, feature_ids=np.full_like(text.feature_ids, -1))
    assert np.array_equal(asked["logits"], expected["logits"])
    seen = run(session, text, **pictures(text))["logits"]
    first = int(np.argmax(text.feature_ids[0] >= 0))
    assert np.array_equal(seen[:, :first], expected["logits"][:, :first])
    assert not np.allclose(seen[:, first:], expected["logits"][:, first:], atol=0.05)


@pytest.mark.parametrize("name", FAMILIES)
def test_steps_are_the_whole_prompt(name: str) -> None:
    """A prompt with pictures in pieces, some of which end inside of a picture."""
    session, text = exported(name).session(), prompt(name)
    whole = run(session, text, **pictures(text))["logits"]
    bounds = [0, 5, text.input_ids.shape[1] - 2, text.input_ids.shape[1] - 1, text.input_ids.shape[1]]
    past, pieces = None, []
    for start, stop in pairwise(bounds):
        past = run(session, text, start, stop, past, **pictures(text, start, stop))
        pieces.append(past["logits"])
    assert error(np.concatenate(pieces, 1), whole) < TOLERANCE


@pytest.mark.parametrize("name", ["llava_siglip", "qwen2_5_vl"])
def test_rows_with_other_pictures_and_skills_do_not_matter(name: str) -> None:
    """Rows with a picture, another, and none, each with its own skill, against each of them alone."""
    made, text = exported(name), prompt(name)
    session = made.session()
    bank, ids = made.bank(made.skills()), made.ids([[1], [2], [0]])
    other = text.feature_ids.copy()
    other[other >= 0] = other[other >= 0][::-1]
    rows = [text.feature_ids, other, np.full_like(other, -1)]
    batch = text._replace(
        input_ids=np.repeat(text.input_ids, 3, 0),
        position_ids=None if text.position_ids is None else np.repeat(text.position_ids, 3, 1),
    )
    if batch.position_ids is None:
        batch = batch._replace(position_ids=np.broadcast_to(np.arange(text.input_ids.shape[1]), batch.input_ids.shape))
    together = run(session, batch, features=text.features, feature_ids=np.concatenate(rows), bank=bank, skill_ids=ids)[
        "logits"
    ]
    for number, row in enumerate(rows):
        fed: dict[str, Any] = {
            "features": text.features,
            "feature_ids": row,
            "bank": bank,
            "skill_ids": ids[number : number + 1],
        }
        assert error(together[number : number + 1], run(session, text, **fed)["logits"]) < TOLERANCE


@pytest.mark.parametrize("name", ["llava_clip", "smolvlm", "qwen2_vl"])
def test_a_skill_with_pictures_is_the_definition_on_transformers(name: str) -> None:
    made, text = exported(name), prompt(name)
    skill = made.skills(1, seed=3)[0]
    found = run(made.session(), text, **pictures(text), bank=made.bank([skill]), skill_ids=made.ids([[1]]))["logits"]
    assert error(found, _with_skill(name, skill)) < 1e-4


def _with_skill(name: str, skill: dict[str, Array]) -> Array:
    """Logits [1, S, V] of the transformers model with the definition in every adapted module."""
    made, text, model = exported(name), prompt(name), torch_model(name)
    handles = []
    for own in made.adapter.modules:
        vectors: dict[str, Array] = {
            kind: skill[f"{kind}.{own.name}"] for kind in made.contract.table.kinds_of(own.name)
        }

        def hook(
            module: torch.nn.Linear,
            args: tuple[torch.Tensor, ...],
            _: object,
            own: AdaptedModule = own,
            vectors: dict[str, Array] = vectors,
        ) -> torch.Tensor:
            weight, bias = (None if value is None else value.detach().numpy() for value in (module.weight, module.bias))
            x = args[0][0].numpy()
            out, _ = reference.lime_linear(x, weight, bias, own.a, own.b, own.scale, vectors, made.adapter.routing)
            return torch.from_numpy(out.astype(np.float32))[None]

        handles.append(model.get_submodule(own.name).register_forward_hook(hook))
    embedded = model.get_input_embeddings()(torch.from_numpy(text.input_ids)).detach().clone()
    places = torch.from_numpy(text.feature_ids[0] >= 0)
    embedded[0, places] = torch.from_numpy(text.features)
    positions = None if text.position_ids is None else torch.from_numpy(text.position_ids)
    try:
        with torch.no_grad():
            hidden = model.get_decoder()(inputs_embeds=embedded, position_ids=positions).last_hidden_state
            logits: Array = model.lm_head(hidden).numpy()
    finally:
        for handle in handles:
            handle.remove()
    return logits


def test_the_directory_lists_the_tower_and_says_what_pictures_become() -> None:
    made = exported("smolvlm")
    files = contents(made.path)
    names = {"model.onnx", "model.onnx.data", "vision.onnx", "vision.onnx.data", "vision.json"}
    assert set(dict(made.contract.files)) == set(dict(made.contract.sizes)) == names
    assert made.contract.sees
    assert dict(made.contract.parts)["vision tower"] > len(files["vision.onnx.data"])
    assert ModelContract.from_json(files["lime.json"].decode()) == made.contract
    assert read_vision(made.path) == contract_of("smolvlm")
    assert "chat_template.jinja" in files
    assert not any(str(checkpoint("smolvlm").parent).encode() in content for content in files.values())


def test_one_export_without_shortcuts_in_eight_bits_twice(tmp_path: Path) -> None:
    adapter, before = decoder_adapter("llava_clip"), contents(checkpoint("llava_clip"))
    for number in range(2):
        export(adapter, checkpoint("llava_clip"), tmp_path / str(number), "int4")
    assert contents(tmp_path / "0") == contents(tmp_path / "1")
    assert contents(checkpoint("llava_clip")) == before
    assert (tmp_path / "0" / "model.onnx").read_bytes() == (
        exported("llava_clip", "int4").path / "model.onnx"
    ).read_bytes()


def test_an_adapter_of_the_tower_is_refused(tmp_path: Path) -> None:
    name = "model.vision_tower.encoder.layers.0.self_attn.q_proj"
    adapter = decoder_adapter("llava_clip")
    wide = replace(adapter.modules[0], a=np.zeros((4, 32), np.float32))
    lost = replace(adapter.modules[1], name="model.layers.0.self_attn.q_proj")
    tower = AdaptedModule(name, np.zeros((2, 32), np.float32), np.zeros((32, 2), np.float32), 1.0)
    with pytest.raises(ExportError) as caught:
        export(replace(adapter, modules=(tower, wide, lost)), checkpoint("llava_clip"), tmp_path / "out")
    assert f"{name}: outside the decoder model.language_model; vision.onnx takes no skills" in str(caught.value)
    assert "the adapter is made for a weight of [64, 32]; the model's is [64, 64]" in str(caught.value)
    assert "model.layers.0.self_attn.q_proj: the model has no such projection" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_match_transformers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder with other weights than the model it is compared with."""
    opened = VisionModel.open(checkpoint("llava_clip"), 1)
    made = shutil.copytree(exported("llava_clip").path, tmp_path / "made")
    opened.check_decoder(made, "fp32")
    with torch.no_grad():
        opened.model.lm_head.weight.add_(0.01)
    with pytest.raises(ExportError, match=r"logits differ by 0\.\d+ of their size; expected at most 0\.001"):
        opened.check_decoder(made, "fp32")


def test_missing_weights_and_settings_are_refused(tmp_path: Path) -> None:
    copy = shutil.copytree(checkpoint("llava_clip"), tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text("utf-8"))
    config["vision_config"]["num_hidden_layers"] = 4
    (copy / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ExportError, match=r"lacks weights of the model\n.*missing model\.vision_tower\.encoder"):
        export(decoder_adapter("llava_clip"), copy, tmp_path / "out")
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(ExportError, match=r"has no preprocessor_config\.json"):
        export(decoder_adapter("llava_clip"), copy, tmp_path / "out")
    with pytest.raises(ExportError, match="vision is 'int3'; expected one of int8, fp32"):
        export(decoder_adapter("llava_clip"), copy, tmp_path / "out", vision="int3")  # type: ignore[arg-type]
