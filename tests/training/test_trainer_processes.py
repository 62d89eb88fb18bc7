"""Two processes, a resumed run after SIGKILL, and gradient checkpointing give the results of a plain run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from lime_edge.cli.commands import main
from lime_edge.errors import ConfigError
from lime_edge.method import distributed
from lime_edge.method.config import LimeConfig
from lime_edge.training.learn_skill import Recipe, learn
from lime_edge.training.plan import TrainingPlan
from lime_edge.training.train_adapter import train
from tests.support.paths import ROOT
from tests.support.tiny_training import backbone_dir, save, scratch, tasks, wrapped, write_rows
from tests.tools import two_processes

PORT = "0"  # any free one
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}


@cache
def data() -> Path:
    """Answers of many lengths, so that processes get unequal numbers of tokens; the last batch is incomplete."""
    rows = [{"prompt": f"say {'x' * (i % 4)}", "answer": "lime" * (1 + i * i % 7)} for i in range(10)]
    return write_rows(scratch() / "unequal.jsonl", rows)


@cache
def alone() -> Path:
    output = scratch() / "alone"
    two_processes.run(output, backbone_dir(), data())
    return output


def close(found: Path, wanted: Path, within: float) -> None:
    """Compare the tensors of two files.

    The tolerance is `within` times the largest number of a tensor, which counts as at least 0.05: some tensors are sums
    that nearly cancel.
    """
    ours, theirs = load_file(found), load_file(wanted)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        largest = float(tensor.abs().max())
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=within * max(largest, 0.05), msg=name)


def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    output = tmp_path / "both"
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", PORT]
    script = ["-m", "tests.tools.two_processes", str(output), str(backbone_dir()), str(data()), "no"]
    command = [sys.executable, *launch, *script]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    gradients = load_file(alone().with_suffix(".safetensors"))
    assert {name.split(".")[0] for name in gradients} == {str(step) for step in range(two_processes.STEPS)}
    assert all(float(gradient.abs().max()) > 1e-5 for gradient in gradients.values())
    close(output.with_suffix(".safetensors"), alone().with_suffix(".safetensors"), 1e-4)
    close(output / "adapter_model.safetensors", alone() / "adapter_model.safetensors", 1e-5)
    assert (output / "general.lime").is_file()
    assert done.stderr.count(f"step {two_processes.STEPS}/{two_processes.STEPS}") == 1  # only one of them prints


def test_gradient_checkpointing_gives_the_gradients_of_a_whole_run(tmp_path: Path) -> None:
    two_processes.run(tmp_path / "out", backbone_dir(), data(), checkpointing=True)
    close(tmp_path / "out.safetensors", alone().with_suffix(".safetensors"), 1e-5)
    close(tmp_path / "out" / "adapter_model.safetensors", alone() / "adapter_model.safetensors", 1e-5)


def test_rows_that_processes_cannot_share_and_skills_of_two_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(wrapped(), tmp_path / "checkpoint")
    monkeypatch.setattr(distributed, "launched", lambda: 3)
    with pytest.raises(ConfigError, match="3 processes were launched; expected one to learn a skill"):
        learn(tasks() / "skill", tmp_path / "checkpoint", tmp_path / "a.lime", Recipe("a"), TrainingPlan())
    monkeypatch.setattr(distributed, "join", lambda: None)
    with pytest.raises(ConfigError, match="batch is 4 rows for 3 processes; expected a multiple of 3"):
        train([str(data())], str(backbone_dir()), tmp_path / "out", LimeConfig(), TrainingPlan(batch=4))


def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    """SIGKILL at a random step: order of rows, routing noise, optimiser and schedule are all resumed."""
    steps, chance = 60, random.Random()
    options = ["--steps", str(steps), "--save-every", "7", "--batch", "4", "--rank", "4", "--experts", "3"]
    command = ["train", str(tasks() / "tasks"), "-m", str(backbone_dir()), *options]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    program = [sys.executable, "-m", "lime_edge", *command, "-o", str(cut)]
    with subprocess.Popen(program, cwd=ROOT, env=ENVIRONMENT) as run:
        _wait_for(cut / "run", chance.randrange(7, 36))
        time.sleep(chance.uniform(0, 0.1))
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
    assert not (cut / "adapter_model.safetensors").exists()
    for output, resumed in ((cut, ["--resume"]), (whole, [])):
        done = CliRunner().invoke(main, [*command, "-o", str(output), *resumed])
        assert done.exit_code == 0, done.output
    for name in ("adapter_model.safetensors", "general.lime"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name


def _wait_for(folder: Path, step: int) -> None:
    """Wait until a checkpoint of this step or a later one is begun."""
    deadline = time.monotonic() + 300
    while not any(int(path.name.split("-")[-1]) >= step for path in folder.glob("checkpoint-*")):
        assert time.monotonic() < deadline, "the run made no checkpoints"
        time.sleep(0.002)
