"""`lime-edge pack`: skills for other runtimes. What they answer there is tested in tests/runtime/test_genai.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from click.testing import CliRunner

from lime_edge.cli import main
from lime_edge.contract.names import BANK, SKILL_IDS
from lime_edge.skills.package import read_skill
from tests.support.runtime_models import contract, exported, skill


def test_an_adapter_holds_the_row_of_the_skill(tmp_path: Path) -> None:
    model, output = exported(), tmp_path / "one.onnx_adapter"
    path = skill(model, "one", activation="always")
    ran = CliRunner().invoke(main, ["pack", str(model), str(path), "--to", "onnx-adapter", "-o", str(output)])
    assert ran.exit_code == 0, ran.output
    values = ort.AdapterFormat.read_adapter(str(output)).get_parameters()
    bank, ids = contract(model).table.bank([read_skill(path).tensors])
    np.testing.assert_array_equal(values[BANK].numpy(), bank)
    np.testing.assert_array_equal(values[SKILL_IDS].numpy(), ids[1:, None])


def test_what_another_runtime_would_get_wrong_is_refused(tmp_path: Path) -> None:
    model, output = exported(), tmp_path / "one.onnx_adapter"
    path = skill(model, "one", activation="response")
    ran = CliRunner().invoke(main, ["pack", str(model), str(path), "--to", "onnx-adapter", "-o", str(output)])
    assert ran.exit_code == 1
    assert "expected 'always'" in ran.output
    assert not output.exists()
    missing = ["pack", str(model), str(path), "--to", "onnx-adapter", "-o", str(tmp_path / "no" / "x")]
    assert CliRunner().invoke(main, missing).exit_code == 2
