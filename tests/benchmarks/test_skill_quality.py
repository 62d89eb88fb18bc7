"""The benchmarks of skills, isolation and ablations, on tiny models: scores, files, order of runs."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.harness.result_lines import Lines, run_missing
from benchmarks.multitask import ablations, ablations_page
from benchmarks.parity import isolation
from benchmarks.skill_quality import methods, page, run, scores
from benchmarks.skill_quality.methods import METHODS, Lime
from lime_edge import read_skill
from lime_edge.contract.routing import Routing
from lime_edge.evaluation.examples import read_rows
from lime_edge.training import backbone, checkpoint
from lime_edge.training.learn_skill import Recipe, prepare
from lime_edge.training.plan import TrainingPlan
from tests.support.paths import DOCS
from tests.support.tiny_training import backbone as tiny_backbone
from tests.support.tiny_training import ids, logits, randomise, save, scratch, tasks, tokenizer, wrapped, write_rows

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbone, "training_dtype", lambda: torch.float32)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(wrapped(routing=Routing(experts=2)), tmp_path_factory.mktemp("shared"))


# -- lines -----------------------------------------------------------------------------------------


def test_what_is_there_is_not_run_again_and_a_torn_line_is(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "lines.jsonl", ("task", "seed"))
    asked: list[int] = []

    def run(job: dict[str, Any]) -> dict[str, Any]:
        asked.append(job["seed"])
        return {"score": job["seed"] / 2}

    jobs = [{"task": "t", "seed": seed} for seed in range(3)]
    assert run_missing(lines, jobs[:2], run) == 2
    with lines.path.open("a") as file:
        file.write('{"task": "t", "seed": 2, "sco')  # killed while it wrote
    assert run_missing(lines, jobs, run) == 1
    assert run_missing(lines, [{"task": "t", "seed": 3}], run, minutes=-1) == 0
    assert asked == [0, 1, 2]
    assert [(record["seed"], record["score"]) for record in lines.read()] == [(0, 0.0), (1, 0.5), (2, 1.0)]


# -- scores ----------------------------------------------------------------------------------------


def rows(*answers: str, **more: Any) -> list[dict[str, Any]]:
    prompt = "Sentence: she go home now today with us .\nCorrected:"
    return [{"prompt": prompt, "answer": answer, **more} for answer in answers]


def test_scores_of_perfect_and_of_empty_answers() -> None:
    right = "she goes home right now , today ."
    for metric in scores.METRICS.values():
        if metric.name != "pass@1":
            assert metric.score([right], rows(right)) == pytest.approx(1)
            assert metric.score([""], rows(right)) == 0


def test_gleu_takes_off_what_should_have_been_changed() -> None:
    reference = rows("she goes home now today with us .")
    left = scores.gleu(["she go home now today with us ."], reference)
    other = scores.gleu(["she runs home now today with us ."], reference)
    assert other == pytest.approx((7 / 8 * 5 / 7 * 4 / 6 * 3 / 5) ** 0.25)  # n-grams that are right
    assert left == pytest.approx((6 / 8 * 3 / 7 * 2 / 6 * 1 / 5) ** 0.25)  # less 1, 2, 2 and 2 with the old fault


def test_rouge_and_chrf_of_worked_examples() -> None:
    reference = rows("the cat sat on the mat")
    assert scores.rouge_l(["The cat lay on a mat."], reference) == pytest.approx(2 * 4 / 12)
    # n-grams of "ab" against "abc": 2 of 2 and of 3; 1 of 1 and of 2; none above
    precision, recall = (1 + 1) / 6, (2 / 3 + 1 / 2) / 6
    assert scores.chrf(["a b"], rows("abc")) == pytest.approx(5 * precision * recall / (4 * precision + recall))


def test_functions_pass_only_if_their_tests_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "_SECONDS", 1)
    tests = ["assert double(2) == 4", "assert double(0) == 0"]
    answers = {
        "def double(x):\n    return 2 * x": True,
        "def double(x):\n    return x + 2": False,
        "import sys\nsys.exit(0)": False,
        "while True: pass": False,
        "with open('file', 'w') as file:\n    file.write('x')\ndef double(x):\n    return 2 * x": False,
    }
    for answer, wanted in answers.items():
        assert scores.passing([answer], rows("", tests=tests)) == wanted, answer


# -- methods ---------------------------------------------------------------------------------------


def test_a_part_of_a_skill_trains_and_holds_that_part_alone(shared: Path, tmp_path: Path) -> None:
    method = Lime({"v_proj": ("expert", "shift"), "": ("gain",)})
    model, _ = method.open(shared)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(("v_proj" in name) != ("lime_gain" in name) for name in trained)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in trained:
                parameter.add_(0.1)
    tokens = ids(1, 6)
    stored = method.store(model, tmp_path)
    skill = read_skill(tmp_path / "skill.lime")
    assert {name.split(".")[0] for name in skill.tensors if "v_proj" in name} == {"expert", "shift"}
    assert {name.split(".")[0] for name in skill.tensors if "q_proj" in name} == {"gain"}
    assert stored.bytes == (tmp_path / "skill.lime").stat().st_size
    assert stored.numbers == sum(p.numel() for p in model.parameters() if p.requires_grad)
    other, _ = method.open(shared)
    checkpoint.set_vectors(other, checkpoint.get_vectors(other) | dict(skill.tensors))
    assert torch.equal(logits(other, tokens), logits(model, tokens))


def test_a_specific_lora_begins_as_the_shared_adapter(tmp_path: Path) -> None:
    model = wrapped(routing=Routing(experts=1), kinds=("expert",))
    save(model, tmp_path)
    found, _ = METHODS["specific"].open(tmp_path)
    tokens = ids(1, 6)
    torch.testing.assert_close(logits(found.eval(), tokens), logits(model, tokens), rtol=1e-4, atol=1e-4)


def test_four_bits_are_a_seventh_of_the_largest() -> None:
    values = np.random.default_rng(0).normal(size=(2, 70)).astype(np.float32)
    found = methods.four_bits({"gain.a": values})["gain.a"]
    for row, kept in zip(values, found, strict=True):
        for start in range(0, 70, 32):
            step = np.abs(row[start : start + 32]).max() / 7
            assert np.abs(row - kept)[start : start + 32].max() <= 0.51 * step
            assert len(np.unique(kept[start : start + 32])) <= 15


@pytest.mark.parametrize("method", ["base", "lime", "lora-1", "ia3"])
def test_a_run_of_the_skill_benchmark(
    method: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "RATE_STEPS", 2)
    found = [{"prompt": f"say {i}", "answer": '{"a": "b"}'} for i in range(6)]
    for task in run.RATE_TASKS:
        for split in ("train", "valid", "test"):
            write_rows(tmp_path / "skills" / task / f"{split}.jsonl", found)
    budget = run.Budget(steps=2, batch=2, rows=3, max_length=100, tokens=4)
    rates = Lines(tmp_path / "rates.jsonl", (*run.KEYS, "rate"))
    bench = run.Bench(tmp_path, shared, budget, rates)
    (job,) = run.jobs(["request_to_json"], [method], [0], budget)
    record = bench.run(job)
    assert (record["metric"], record["rows_measured"]) == ("slot F1", 3)
    if method != "base":
        losses: dict[float, float] = defaultdict(lambda: 1.0)
        for line in rates.read():
            losses[line["rate"]] *= line["valid_loss"]
        assert len(rates.read()) == len(run.RATE_TASKS) * len(losses) == 4
        assert record["rate"] == min(losses, key=losses.__getitem__)
        assert record["bytes"] > record["smallest_bytes"] or method == "lime"
        assert bench.run(job)["loss"] == record["loss"]
    assert ("loss_4_bits" in record) == (method == "lime")
    made = page.blocks(page.grouped([{**job, **record}]), rates.read())
    assert "slot F1" in made["scores"]
    assert ("rates" in made) == (method != "base")


def test_the_most_telling_runs_come_first_and_none_is_left_out() -> None:
    budget = run.Budget(steps=2, batch=2, rows=3, max_length=100, tokens=4)
    jobs = list(run.jobs(run.TASKS, list(METHODS), [0], budget))
    assert {(job["task"], job["method"]) for job in jobs} == {(t, m) for t in run.TASKS for m in METHODS}
    assert len(jobs) == len(run.TASKS) * len(METHODS)
    first = jobs[: 2 * run.TELLING]
    assert {job["task"] for job in first} == set(run.TASKS[:2])
    assert {"lime", "lora-8", "lora-1", "ia3", "road"} <= {job["method"] for job in first}


# -- isolation and ablations -----------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [True, False])
def test_the_first_skill_keeps_its_bits_while_the_adapter_is_frozen(frozen: bool, shared: Path) -> None:
    model, tokens, _ = prepare(shared, Recipe("skill", expert=True), torch.float32)
    if not frozen:
        isolation.thaw(model)
    some = read_rows(tasks() / "skill" / "train.jsonl")
    plan = TrainingPlan(steps=2, batch=2, vector_rate=1e-2, shared_rate=1e-2)  # the rate of the first step is 0
    changes = list(isolation.sequence(model, tokens, [some] * 5, some[:2], [plan] * 5))
    assert [change["skills"] for change in changes] == [1, 2, 5]
    assert all(change["same_bits"] for change in changes) == frozen
    assert (changes[-1]["largest_change"] == 0) == frozen
    report = isolation.report(dict.fromkeys(isolation.WAYS, changes))
    assert len(report.splitlines()) == 2 + len(changes)


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


@pytest.mark.parametrize("page", [page, ablations_page], ids=["skills", "ablations"])
def test_the_pages_are_those_of_the_lines(page: Any, tmp_path: Path) -> None:
    name = page.DOCUMENT.name
    (tmp_path / name).write_text((DOCS / name).read_text("utf-8"), "utf-8")
    page.main.callback(page.RESULTS, tmp_path / name)
    assert (tmp_path / name).read_text("utf-8") == (DOCS / name).read_text("utf-8")
