"""Converts a skill for ONNX Runtime GenAI: an .onnx_adapter file that feeds the bank and the skill's number.

`Adapters` is the only interface that works: `Generator.set_model_input` silently ignores optional inputs (0.18).
GenAI knows neither the prompt of a skill nor where in a text it applies, and validates nothing, so this module does
all checks.
"""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from lime_edge.contract.names import BANK, SKILL_IDS
from lime_edge.errors import ConfigError
from lime_edge.runtime.model.directory import read_directory
from lime_edge.runtime.model.session import Graph, SessionSettings
from lime_edge.skills.compatibility import check_skill
from lime_edge.skills.package import read_skill


def write_adapter(model: Path, skill: Path, output: Path) -> Path:
    """Write a skill for `onnxruntime_genai.Adapters`; without an active adapter the base runs.

    Args:
        model: An exported model directory.
        skill: A skill package made for it, with activation "always".
        output: The file to write, NAME.onnx_adapter.

    Returns:
        `output`.

    Raises:
        ModelError: The model directory is invalid.
        SkillFormatError, SkillMismatchError: The skill is invalid, or made for another model.
        ConfigError: The skill or the model needs something that GenAI lacks.
    """
    graph = Graph(read_directory(model, verify=False), SessionSettings(device="cpu", operators=None))
    contract, package = graph.directory.contract, read_skill(skill)
    check_skill(package, contract)
    faults = []
    if (activation := package.manifest.activation) != "always":
        faults.append(f"its activation is {activation!r}; expected 'always': GenAI applies a skill to all tokens")
    if graph.virtual_tokens:
        faults.append("it is a soft prefix; GenAI cannot put virtual tokens before a prompt")
    if graph.window > 1:
        faults.append(
            f"the model routes by windows of {graph.window} tokens; GenAI does not keep routing evidence between steps"
        )
    if faults:
        raise ConfigError(f"skill {package.name!r} cannot run in ONNX Runtime GenAI", faults)
    bank, ids = contract.table.bank([package.tensors], graph.bank_dtype)  # [2, P], [2]
    adapter = ort.AdapterFormat()
    adapter.set_adapter_version(1)
    adapter.set_model_version(1)
    values = {BANK: bank, SKILL_IDS: ids[1:, None]}
    adapter.set_parameters({name: ort.OrtValue.ortvalue_from_numpy(value) for name, value in values.items()})
    adapter.export_adapter(str(output))
    return output
