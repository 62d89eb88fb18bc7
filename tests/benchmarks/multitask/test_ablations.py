"""Ablations: every variant can be built and differs from the reference; a run on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.multitask import ablations, ablations_page
from lime_edge.training import backbone, checkpoint
from tests.support.tiny_training import backbone as tiny_backbone
from tests.support.tiny_training import randomise, scratch, tokenizer, write_rows

pytestmark = [
    pytest.mark.usefixtures("float32"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # from PEFT
]


def test_every_ablation_can_be_built_and_changes_something() -> None:
    plain = ablations.config({}, 2)
    seen = [plain]
    for values in ablations.ABLATIONS.values():
        for changes in values.values():
            config = ablations.config(changes, 2)
            assert config not in seen
            seen.append(config)
    assert ablations.ABLATIONS.keys() == ablations.OURS.keys()


@pytest.mark.parametrize("base", ["trailing", "scattered"])
def test_other_features_route_by_other_outputs(base: str) -> None:
    def routes(name: str) -> torch.Tensor:
        torch.manual_seed(0)
        model = checkpoint.wrap(tiny_backbone(), ablations.config({"base": name}, 2))
        randomise(model, 0)
        layer = next(iter(checkpoint.tuner(model.eval()).layers().values()))
        y = torch.arange(layer.out_features, dtype=torch.float32).sin()[None, None]
        some = layer.routed_by()
        return layer.route(y[..., some], torch.cos(y)[..., some])

    found = routes(base)
    assert found.shape == (1, 1, 4)
    assert not torch.allclose(found, routes("lora"))


def test_an_ablation_runs_and_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "resolve", lambda _: scratch())
    monkeypatch.setattr(backbone, "load", lambda *_: (tiny_backbone(), tokenizer()))
    monkeypatch.setattr(ablations, "TASKS", ("first", "second"))
    for task in ablations.TASKS:
        for split in ("train", "test"):
            lines = [{"prompt": f"{task} {i}", "answer": "yes", "choices": ["no", "yes"]} for i in range(4)]
            write_rows(tmp_path / task / f"{split}.jsonl", lines)
    jobs = list(ablations.jobs(1, 4, 2))
    assert jobs[0]["ablation"] == ablations.REFERENCE
    assert len(jobs) == 1 + sum(map(len, ablations.ABLATIONS.values()))
    records = [{**job, **ablations.run(job, tmp_path, 2, 2)} for job in jobs[:2]]
    assert records[0]["loss"] != records[1]["loss"]
    assert json.loads(json.dumps(records)) == records
    drawn = ablations_page.grouped(records)
    assert {name: list(runs) for name, runs in drawn.items()} == {"window": ["1", "2"]}
    ablations_page.plot("window", drawn["window"]).savefig(tmp_path / "plot.svg")
