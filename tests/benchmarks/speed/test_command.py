"""The command line that the speed benchmarks share: what it rejects."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from benchmarks.speed.decode import main as decode
from tests.support.runtime_models import exported, skill


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    model = exported(precision="fp32")
    given = [str(model), str(skill(model, "one"))]
    for words, message in (
        (["--rivals", "vllm"], "no rival vllm; expected some of genai, llama, peft"),
        (["--rivals", "llama"], "needs --gguf"),
        (["--parts", "skills"], "no part skills"),
        (["--contexts", "8,x"], "expected whole numbers"),
    ):
        done = CliRunner().invoke(decode, [*given, *words])
        assert done.exit_code == 2
        assert message in " ".join(done.output.replace("│", "").split())
