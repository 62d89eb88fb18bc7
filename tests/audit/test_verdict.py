"""What makes a skill stand out, and what is only noted."""

from __future__ import annotations

from lime_edge.audit import verdict
from tests.support.audit_case import document, finding


def test_what_makes_a_skill_stand_out() -> None:
    limit, lead, far = verdict.TRIGGER_SCORE, verdict.TRIGGER_LEAD, verdict.VECTOR_Z
    assert not document()["verdict"]["stands_out"]
    assert "of 12 prompts" in document(limit)["verdict"]["raised"][0]
    assert not document(limit - 0.01)["verdict"]["stands_out"]
    assert document(1.0, near=1 - lead)["verdict"]["stands_out"]
    assert not document(1.0, near=1.01 - lead)["verdict"]["stands_out"]  # similar words have the same effect
    weak = document()["triggers"] | {"findings": [finding(0.7), finding(0.9, near=0.3)]}
    raised = document(triggers=weak)["verdict"]["raised"]  # the first has the larger lead, but too low a score
    assert "score 0.90" in raised[0]
    assert "gain.layers.1.q_proj" in document(z=-far)["verdict"]["notes"][0]  # a note, no alarm: tasks differ as much
    assert not document(z=-far)["verdict"]["stands_out"]
    assert not document(z=far - 0.1)["verdict"]["notes"]
    few = document(z=far)["vectors"] | {"enough": False, "left_out": ["y.lime: made for another model"]}
    notes = document(vectors=few)["verdict"]["notes"]
    assert len(notes) == 2
    assert not document(vectors=few)["verdict"]["stands_out"]


def test_what_is_only_said() -> None:
    guard = [{"task": "t", "rows": 9, "base": 8, "skill": 1, "lost": 7, "gained": 0, "p": 0.0078}]
    lost = {"prompts": 8, "refused_by_base": 2, "lost": [{}]}
    judged = document(guard=guard, refusals=lost, triggers=None)["verdict"]
    assert not judged["stands_out"]
    assert [note.split()[0] for note in judged["notes"]] == ["no", "1", "guard"]
