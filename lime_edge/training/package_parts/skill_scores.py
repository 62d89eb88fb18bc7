"""Measures a skill against its fair rival: the base, which is given the whole instruction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lime_edge.evaluation.examples import Row, data_digest
from lime_edge.evaluation.instruction import Instruction
from lime_edge.evaluation.metrics import Score, score
from lime_edge.skills.manifest import Metric
from lime_edge.training.predictor import Predictor

from .golden_prompts import today


@dataclass(frozen=True)
class SkillScores:
    """Scores of skill and base on the same rows.

    Attributes:
        rows: The rows as they were given.
        skill, base: Their scores.
    """

    rows: Sequence[Row]
    skill: Score
    base: Score

    @property
    def names(self) -> dict[str, str]:
        """Name of a metric -> attribute of `Score`; the last one decides which of two skills is better."""
        if all(row.choices for row in self.rows):
            return {"accuracy": "exact"}
        return {"exact match": "exact", "f1": "f1"}

    @property
    def values(self) -> tuple[float, float]:
        """The deciding metric of the skill, and of the base."""
        deciding = list(self.names.values())[-1]
        return getattr(self.skill, deciding), getattr(self.base, deciding)

    def metrics(self) -> list[Metric]:
        """The entries of a manifest."""
        return [
            Metric(
                dataset=data_digest(self.rows),
                name=name,
                split="valid",
                rows=len(self.rows),
                skill=round(getattr(self.skill, key), 4),
                base=round(getattr(self.base, key), 4),
                date=today(),
            )
            for name, key in self.names.items()
        ]


def measure(predictor: Predictor, rows: Sequence[Row], cut: Instruction, base: Score | None) -> SkillScores:
    """Answer the rows with the skill and, if its score is not known, with the base.

    Args:
        predictor: Its model has the skill's vectors.
        rows: At least one row.
        cut: What the skill is not given; the base is given all.
        base: The score of the base on the same rows.
    """
    wanted = [row.answer for row in rows]
    skill = score(predictor.answers([cut.cut(row) for row in rows], label="measuring the skill"), wanted)
    if base is None:
        with predictor.model.disable_adapter():
            base = score(predictor.answers(rows, label="measuring the base"), wanted)
    return SkillScores(rows, skill, base)
