"""Parts of a training run: parameter groups, the order of rows, the output folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from lime_edge.contract.vector_kinds import KINDS
from lime_edge.training.checkpoint import tuner
from lime_edge.training.plan import TrainingPlan
from lime_edge.training.trainer import _Order, parameter_groups, unwritable
from tests.support.tiny_training import wrapped


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


def test_a_folder_is_checked_and_not_created(tmp_path: Path) -> None:
    assert unwritable(tmp_path / "new" / "folder") == []
    assert list(tmp_path.iterdir()) == []
    (fault,) = unwritable(tmp_path / "\udce9")
    assert "surrogates not allowed" in fault
    (tmp_path / "file").touch()
    (fault,) = unwritable(tmp_path / "file" / "below")
    assert fault.startswith(f"nothing can be written to {tmp_path / 'file' / 'below'}: ")
