"""A vision-language checkpoint on its way to a model directory: opened, checked, written and compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from lime_edge.contract.names import VISION_FILE, VISION_JSON, VISION_WEIGHTS_FILE
from lime_edge.contract.vision import VisionContract
from lime_edge.errors import ExportError
from lime_edge.exporters.weights.adapter_weights import AdaptedModule

from .contracts import FAMILIES, family_name, vision_contract
from .kinds import VisionPrecision
from .saved_decoder import quiet, save_decoder
from .torch_parity import feature_faults, logit_faults, prompt_of, torch_features
from .tower_family import TowerFamily
from .vision_graph import export_tower, quantise_tower


@dataclass(frozen=True)
class VisionModel:
    """An opened checkpoint.

    Attributes:
        directory: Where it was opened.
        model: The transformers model in fp32.
        family: How its family is exported.
        contract: The content of vision.json.
    """

    directory: Path
    model: Any
    family: TowerFamily
    contract: VisionContract

    @classmethod
    def open(cls, directory: Path, tiles: int) -> VisionModel:
        """Load a checkpoint.

        Args:
            directory: A vision-language checkpoint in the Hugging Face layout.
            tiles: As in `vision_contract`.

        Raises:
            ExportError: It cannot be exported, or does not load.
        """
        contract = vision_contract(directory, tiles)
        try:
            with quiet():
                loaded: Any = AutoModelForImageTextToText.from_pretrained(
                    directory, dtype=torch.float32, local_files_only=True, output_loading_info=True
                )
                model, found = loaded
        except Exception as error:  # transformers raises many unrelated classes
            raise ExportError(f"{directory} cannot be loaded: {type(error).__name__}: {error}") from error
        if missing := sorted(found["missing_keys"]):
            raise ExportError(f"{directory} lacks weights of the model", [f"missing {name}" for name in missing[:20]])
        return cls(directory, model.eval(), FAMILIES[family_name(directory)], contract)

    @property
    def decoder_name(self) -> str:
        """Name of the decoder in the model, as "model.language_model"."""
        decoder = self.model.get_decoder()
        return next(str(name) for name, module in self.model.named_modules() if module is decoder)

    def module_faults(self, modules: Sequence[AdaptedModule]) -> Iterator[str]:
        """Adapted modules that are not projections of the decoder, or of other shapes."""
        inside = f"{self.decoder_name}."
        found = dict(self.model.named_modules())
        for module in modules:
            linear = found.get(module.name)
            if not isinstance(linear, torch.nn.Linear):
                yield f"{module.name}: the model has no such projection"
            elif not module.name.startswith(inside):
                yield (
                    f"{module.name}: outside the decoder {inside[:-1]}; vision.onnx takes no skills: "
                    "train with target_modules of the decoder"
                )
            elif (linear.out_features, linear.in_features) != (module.out_features, module.in_features):
                adapted, own = [module.out_features, module.in_features], list(linear.weight.shape)
                yield f"{module.name}: the adapter is made for a weight of {adapted}; the model's is {own}"

    def save_decoder(self, output: Path) -> Path:
        """Save the decoder as a language model for the model builder, in a new directory, and return it."""
        save_decoder(self.model, self.directory, output, self.contract.rotary_3d)
        return output

    def write(self, output: Path, precision: VisionPrecision) -> tuple[str, ...]:
        """Write vision.onnx and vision.json, and compare the features with transformers.

        Returns:
            Names of the files.

        Raises:
            ExportError: torch cannot export the tower, or the features differ.
        """
        probe = self.family.probe(self.model, self.contract)
        export_tower(self.model, self.family, probe, output)
        features = torch_features(self.model, probe)
        faults = feature_faults(features, self.family, probe, output, "fp32")
        if precision == "int8" and not faults:
            quantise_tower(output)
            faults = feature_faults(features, self.family, probe, output, "int8")
        if faults:
            raise ExportError(f"the exported tower of {self.directory} is not the one of transformers", faults)
        (output / VISION_JSON).write_text(self.contract.to_json(), "utf-8")
        return VISION_FILE, VISION_WEIGHTS_FILE, VISION_JSON

    def check_decoder(self, directory: Path, precision: str) -> None:
        """Compare the logits of an exported decoder with transformers, for a prompt with pictures.

        Raises:
            ExportError: They differ.
        """
        probe = self.family.probe(self.model, self.contract)
        prompt = prompt_of(self.model, self.contract, probe, torch_features(self.model, probe))
        if faults := logit_faults(prompt, directory, precision):
            raise ExportError(f"the exported decoder of {self.directory} is not the one of transformers", faults)
