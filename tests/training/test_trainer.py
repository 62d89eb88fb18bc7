"""Parameter groups: the learning rate and weight decay of each kind of parameter."""

from __future__ import annotations

from lime_edge.contract.vector_kinds import KINDS
from lime_edge.training.checkpoint import tuner
from lime_edge.training.plan import TrainingPlan
from lime_edge.training.trainer import parameter_groups
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
