"""The benchmark of switching and loading on a tiny model: the calls that it counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.speed import switch
from tests.benchmarks.support.speed_runs import measured
from tests.support.runtime_models import exported, skill


def test_switching_and_loading_are_measured(tmp_path: Path) -> None:
    options = ["--loaded", "3,1", "--loads", "2", "--switches", "8", "--rivals", "genai", "--adapters", "1,2"]
    found = measured(switch.main, tmp_path, *options)
    assert found["benchmark"] == "switch"
    figures = {(one["engine"].split()[0], one["call"], one["loaded"]): one["calls"] for one in found["figures"]}
    ours = {("use_skill", 8), ("load_skill", 2), ("unload_skill", 2)}
    assert figures == {
        **{("lime-edge", call, loaded): calls for loaded in (1, 3) for call, calls in ours},
        **{("ORT-GenAI", "Adapters.load", loaded): 1 for loaded in (1, 2)},
        **{("ORT-GenAI", "new Generator, set_active_adapter", loaded): 200 for loaded in (1, 2)},
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rivals", "ours"], "no rival ours; expected some of peft, genai, llama"),
        (["--rivals", "llama", "--loads", "1", "--switches", "1", "--loaded", "1"], "needs --gguf"),
    ],
)
def test_what_cannot_be_measured_is_said(tmp_path: Path, options: list[str], message: str) -> None:
    model = exported()
    done = CliRunner().invoke(switch.main, [str(model), str(skill(model, "legal")), "--work", str(tmp_path), *options])
    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", "").split())
