"""Results: the facts about a skill and the receipts of its answers."""

from __future__ import annotations

import math

import pytest

from lime_edge.runtime import Runtime
from lime_edge.runtime.decoding.results import receipt, to_choice
from lime_edge.runtime.skills.registry import AppliedSkill
from lime_edge.skills.package import read_skill
from tests.support.runtime_models import exported, runtime, skill


@pytest.fixture
def made() -> Runtime:
    return runtime(exported(), "legal", "brief")


def test_what_is_known_of_a_skill(made: Runtime) -> None:
    path = skill(exported(), "third", description="Does a thing.", author="me", license="MIT", activation="always")
    info = made.load_skill(path, name="mine")
    assert (info.name, info.version, info.activation) == ("mine", "1.0.0", "always")
    assert (info.description, info.author, info.license) == ("Does a thing.", "me", "MIT")
    assert (info.digest, info.size, info.path) == (read_skill(path).digest, path.stat().st_size, path)
    assert not info.proved
    assert [loaded.name for loaded in made.skills()] == ["legal", "brief", "mine"]
    found = made.generate("x", "mine", max_new_tokens=1).receipt
    assert found == {
        "skills": [
            {
                "name": "mine",
                "version": "1.0.0",
                "digest": info.digest,
                "generation": 3,
                "signer": None,
                "weight": 1.0,
            }
        ],
        "activation": "always",
        "backbone": made.contract.backbone_digest,
        "adapter": made.contract.adapter_digest,
        "graph": made.contract.graph_digest,
        "precision": "fp32",
        "tokens": {"prompt": 9, "reused": 0, "new": 1, "drafted": 0, "accepted": 0},
        "switches": [],
        "past": [],
    }
    assert made.generate("x", None, max_new_tokens=1).receipt["skills"] == []


def test_a_tie_goes_to_the_first_choice_and_best_only_gives_no_probabilities(made: Runtime) -> None:
    scores = {"no": -2.0, "yes": -1.0, "perhaps": -1.0}
    choice = to_choice(scores, AppliedSkill(), made.contract, best_only=False)
    assert choice.label == "yes"
    assert choice.probabilities["yes"] == choice.probabilities["perhaps"] == pytest.approx(1 / (2 + math.exp(-1)))
    assert to_choice(scores, AppliedSkill(), made.contract, best_only=True).probabilities == {}


def test_the_receipt_of_the_base_names_no_skill_and_no_activation(made: Runtime) -> None:
    found = receipt(AppliedSkill(), made.contract)
    assert (found["skills"], found["activation"], found["graph"]) == ([], None, made.contract.graph_digest)
