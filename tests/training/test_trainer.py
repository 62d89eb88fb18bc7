"""Parts of a training run: parameter groups, the order of rows, the output folder.

Two processes, a resumed run after SIGKILL, and gradient checkpointing give the results of a plain run.
"""

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
from lime_edge.contract.vector_kinds import KINDS
from lime_edge.errors import ConfigError
from lime_edge.method import distributed
from lime_edge.method.config import LimeConfig
from lime_edge.training.checkpoint import tuner
from lime_edge.training.dataset import Example
from lime_edge.training.learn_skill import Recipe, learn
from lime_edge.training.pictures.picture_features import Pictures
from lime_edge.training.plan import TrainingPlan
from lime_edge.training.train_adapter import train
from lime_edge.training.trainer import _Order, lengths_of, parameter_groups, unwritable
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


def test_parameter_groups() -> None:
    model = wrapped(kinds=KINDS, shared_vector=True)
    names = {id(p): name for name, p in model.named_parameters()}
    vectors, others = parameter_groups(model, TrainingPlan(vector_rate=0.5, shared_rate=0.25, weight_decay=0.125))
    assert (vectors["lr"], vectors["weight_decay"]) == (0.5, 0.0)
    assert (others["lr"], others["weight_decay"]) == (0.25, 0.125)
    kinds = [{names[id(p)].split(".")[-2] for p in group["params"]} for group in (vectors, others)]
    assert kinds[0] == {"lime_expert", "lime_gain", "lime_shift", "lime_rank", "lime_shared", "lime_gate"}
    assert kinds[1] == {"lime_A", "lime_B"}
    assert len(vectors["params"]) == 8 * 6
    assert len(others["params"]) == 8 * 2
    for layer in tuner(model).layers().values():
        layer.freeze_shared()
    assert [len(group["params"]) for group in parameter_groups(model, TrainingPlan())] == [8 * 6]
    scaled = parameter_groups(model, TrainingPlan(vector_rate=0.5, vector_scales={"gain": 4.0, "shift": 0.5}))
    rates = {names[id(p)].split(".")[-2]: group["lr"] for group in scaled for p in group["params"]}
    assert rates == {f"lime_{kind}": 0.5 for kind in ("expert", "rank", "shared", "gate")} | {
        "lime_gain": 2.0,
        "lime_shift": 0.25,
    }


@pytest.mark.parametrize("batch", [2, 4, 5])
def test_an_order_repeats_by_epoch_and_fills_the_last_step_from_the_first_rows(batch: int) -> None:
    lengths = [7 * i % 13 for i in range(10)]
    order = _Order(lengths, batch, seed=3)
    first = list(order)
    assert len(first) == len(order) == -(-10 // batch) * batch
    assert sorted(first[:10]) == list(range(10))
    assert first[10:] == first[: len(order) - 10]
    order.set_epoch(1)
    assert list(order) != first
    order.set_epoch(0)
    assert list(order) == first
    assert list(_Order(lengths, batch, seed=4)) != first


def test_rows_of_a_step_have_similar_lengths() -> None:
    order = list(_Order(list(range(400)), 4, seed=0))  # lengths are indices
    spreads = sorted(max(order[i : i + 4]) - min(order[i : i + 4]) for i in range(0, 400, 4))
    assert spreads[50] < 40  # rows drawn at random would spread over some 240


def test_answers_of_different_length_share_a_step_where_prompts_are_pictures() -> None:
    shown = Pictures((-1,) * 20, torch.zeros(10, 4))
    for pictures, shared in ((shown, True), (None, False)):
        rows = [Example((0,) * (34 + 2 * (i % 2)), 30, 0, pictures) for i in range(40)]  # two classes
        items = [{"input_ids": row.input_ids, "example": row} for row in rows]
        order = list(_Order(lengths_of(items), 4, seed=0))
        classes = [{at % 2 for at in order[i : i + 4]} for i in range(0, 40, 4)]
        mixed = sum(len(both) == 2 for both in classes)
        assert mixed > 6 if shared else mixed < 5


def test_a_folder_is_checked_and_not_created(tmp_path: Path) -> None:
    assert unwritable(tmp_path / "new" / "folder") == []
    assert list(tmp_path.iterdir()) == []
    (fault,) = unwritable(tmp_path / "\udce9")
    assert "surrogates not allowed" in fault
    (tmp_path / "file").touch()
    (fault,) = unwritable(tmp_path / "file" / "below")
    assert fault.startswith(f"nothing can be written to {tmp_path / 'file' / 'below'}: ")
