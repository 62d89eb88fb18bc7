"""Progress lines without a terminal, and the time limit of a run."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from lime_edge.training.progress import ProgressLines
from tests.support.train_case import PLAN, run

pytestmark = pytest.mark.usefixtures("float32")


def test_minutes_end_a_run_which_can_be_resumed(tmp_path: Path) -> None:
    figures = run(tmp_path / "out", dataclasses.replace(PLAN, minutes=1e-6))
    assert figures["steps"] == 1
    assert (tmp_path / "out" / "run" / "checkpoint-1").is_dir()
    assert run(tmp_path / "out", dataclasses.replace(PLAN, steps=2), resume=True)["steps"] == 2


def test_lines_where_there_is_no_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lime_edge.training.progress.LINE_EVERY", 5)
    plan = dataclasses.replace(PLAN, steps=6, batch=1, save_every=5)
    figures = run(tmp_path / "out", plan, valid=True)
    lines = [line.split(": ") for line in capfd.readouterr().err.splitlines() if line.startswith("step ")]
    # each step is evaluated once, the last one too
    assert [step for step, _ in lines] == ["step 5/6", "step 5", "step 6", "step 6/6"]
    assert re.fullmatch(r"loss [\d.]+, \d+ tokens/s", lines[0][1])
    assert lines[2][1] == f"validation loss {figures['eval_loss']:.4f}"


@pytest.mark.parametrize("first", [True, False])
def test_only_the_first_process_prints_and_no_step_twice(first: bool, capfd: pytest.CaptureFixture[str]) -> None:
    state = SimpleNamespace(global_step=20, max_steps=20, num_input_tokens_seen=0, is_world_process_zero=first)
    progress = ProgressLines(None)
    progress.on_train_begin(None, state, None)
    progress.on_log(None, state, None, logs={"loss": 1.25})
    progress.on_log(None, state, None, logs={"eval_loss": 2.5})
    progress.on_train_end(None, state, None)
    lines = ["step 20/20: loss 1.250, 0 tokens/s", "step 20: validation loss 2.5000"]
    assert capfd.readouterr().err.splitlines() == (lines if first else [])
