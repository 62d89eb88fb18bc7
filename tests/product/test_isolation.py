"""Twenty skills learned one after another do not change the first one's file, logits and answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lime_edge import Runtime
from lime_edge.skills.package import read_skill
from lime_edge.training import backbone, checkpoint
from lime_edge.training.export_checkpoint import export_checkpoint
from lime_edge.training.learn_skill import Recipe, learn, prepare
from lime_edge.training.plan import TrainingPlan
from tests.support.tiny_training import ids, logits, save, scratch, wrapped, write_rows

PLAN = TrainingPlan(steps=2, batch=4, vector_rate=5e-2)
COUNT = 20


def answers(checkpoint_dir: Path, package: Path) -> torch.Tensor:
    """Torch logits with a skill read from its file."""
    model, _, _ = prepare(checkpoint_dir, Recipe("any"), torch.float32)
    checkpoint.set_vectors(model, read_skill(package).tensors)
    return logits(model.eval(), ids(2, 12))


def test_twenty_skills_leave_the_first_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "training_dtype", lambda: torch.float32)
    shared = save(wrapped(), tmp_path / "checkpoint")
    packages = [tmp_path / f"skill{number}.lime" for number in range(COUNT)]

    def learned(number: int) -> None:
        rows = [{"prompt": f"task {number}, row {i}", "answer": f"{number}"} for i in range(4)]
        data = write_rows(scratch() / f"isolation-{number}.jsonl", rows)
        learn(data, shared, packages[number], Recipe(f"skill{number}", metric_rows=0), PLAN)

    learned(0)
    files = {path: path.read_bytes() for path in shared.rglob("*") if path.is_file()}
    package, before = packages[0].read_bytes(), answers(shared, packages[0])
    export_checkpoint(shared, tmp_path / "model", "fp32")
    runtime = Runtime.load(tmp_path / "model", threads=1)
    prompts = ["task 0, row 1", "something else"]

    def run() -> tuple[list[tuple[int, ...]], list[float]]:
        found = runtime.generate(prompts, skill="skill0", max_new_tokens=8, temperature=0.0)
        choice = runtime.choose(prompts[0], ["0", "1"], skill="skill0")
        return [one.token_ids for one in found], list(choice.probabilities.values())

    runtime.load_skill(packages[0], prove=True)
    expected = run()
    for number in range(1, COUNT):
        learned(number)
        runtime.load_skill(packages[number])
    assert {path: path.read_bytes() for path in shared.rglob("*") if path.is_file()} == files
    assert packages[0].read_bytes() == package
    assert torch.equal(answers(shared, packages[0]), before)
    assert len(runtime.skills()) == COUNT
    assert run() == expected
    assert not torch.equal(answers(shared, packages[-1]), before)
