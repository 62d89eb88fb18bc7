"""Skills of any torch module: learned by a loop of the caller's, packed, and exported with what they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

from lime_edge.contract.model import read_contract
from lime_edge.contract.routing import Routing
from lime_edge.errors import ConfigError
from lime_edge.method import LimeConfig
from lime_edge.runtime.module import Module
from lime_edge.skills.package import read_skill
from lime_edge.training import checkpoint
from lime_edge.training.module_skills import export_module, module_digest, start_skill, write_skill
from tests.support.module_case import Denoiser, inputs, made, outputs, wrapped


def test_a_skill_begins_neutral_and_changes_vectors_alone() -> None:
    model = wrapped()
    with model.disable_adapter():
        base = outputs(model, inputs())
    vectors = start_skill(model)
    started = outputs(model, inputs())
    assert all((base[name] == started[name]).all() for name in base)
    shared = checkpoint.adapter_digest(model), module_digest(model)
    optimizer = torch.optim.SGD(vectors, 0.1)
    loss = model.train()(**inputs())["noise"].square().mean()
    loss.backward()
    optimizer.step()
    assert sorted(p.shape for p in vectors) == sorted(p.shape for p in model.parameters() if p.requires_grad)
    assert (checkpoint.adapter_digest(model), module_digest(model)) == shared
    after = model.eval()(**inputs())["noise"].square().mean()
    assert after.item() < loss.item()


def test_a_package_names_what_it_belongs_to() -> None:
    directory, path, model = made()
    skill, contract = read_skill(path), read_contract(directory)
    manifest = skill.manifest
    assert (manifest.backbone, manifest.backbone_name) == (contract.backbone_digest, "Denoiser")
    assert (manifest.adapter, manifest.modules) == (contract.adapter_digest, contract.table.digest)
    assert (manifest.activation, manifest.description, manifest.license) == ("always", "A style", "CC0-1.0")
    assert contract.backbone_digest == module_digest(model)


def test_the_digest_of_a_module_does_not_depend_on_its_adapter() -> None:
    other = wrapped(experts=1, target_modules=["q"])
    assert module_digest(other) == module_digest(wrapped())
    with torch.no_grad():
        other.base_model.model.v.weight[0, 0] += 1
    assert module_digest(other) != module_digest(wrapped())


def test_unknown_facts_and_other_models(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown facts colour; expected some of version, description, license"):
        write_skill(wrapped(), tmp_path / "x.lime", "x", colour="red")
    with pytest.raises(ConfigError, match="expected a model wrapped with LimeConfig"):
        export_module(Denoiser(), inputs(), tmp_path / "out")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_image_classifier_of_transformers(tmp_path: Path) -> None:
    torch.manual_seed(1)
    shape: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape |= {"intermediate_size": 48, "image_size": 16, "patch_size": 8, "num_labels": 4}
    vit = ViTForImageClassification(ViTConfig(**shape)).train(False)
    config = LimeConfig(target_modules=["o_proj", "fc1", "classifier"], r=2, routing=Routing(experts=1))
    model = peft.get_peft_model(vit, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    pixels = torch.randn(2, 3, 16, 16)
    export_module(model, {"pixel_values": pixels}, tmp_path / "vit")
    skill = write_skill(model, tmp_path / "scene.lime", "scene")
    checkpoint.set_vectors(model, skill.tensors)
    runtime = Module.load(tmp_path / "vit")
    runtime.load_skill(skill.path)
    more = torch.randn(5, 3, 16, 16)
    with torch.no_grad():
        expected = model(pixel_values=more).logits
    assert torch.allclose(torch.from_numpy(runtime.run({"pixel_values": more}, "scene")["logits"]), expected, atol=1e-5)
