"""Measures how much each part of a learned skill contributes, and the cost of storing it in 4 bits, without training.

    python -m benchmarks.skill_quality.parts --data DIR [--minutes 10]

Measures the shipped skills whole, without one kind of vectors, without the vectors of one projection, and in 4 bits:
the loss per token of the right answers on test rows, a line each in benchmarks/results/skill-parts.jsonl. A part that
is removed here was present while the rest was learned; `run` has skills that are learned without it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.harness.result_lines import RESULTS, Lines, Record, run_missing
from lime_edge import read_skill
from lime_edge.common.paths import SHIPPED
from lime_edge.contract.vector_kinds import NEUTRAL
from lime_edge.evaluation.examples import read_rows
from lime_edge.evaluation.instruction import Instruction
from lime_edge.skills.vector_codec import kind_of, module_of
from lime_edge.training import backbone, checkpoint
from lime_edge.training.learn_skill import Recipe, prepare

from .methods import Vectors, four_bits
from .run import loss

SKILLS = {
    "json": "request_to_json",
    "router": "assistant_routing",
    "shell": "shell_command",
    "legal": "legal_clause_type",
}
VARIANTS = ("whole", "4 bits", "no expert", "no gain", "no shift", "no o_proj", "no up_proj", "base")
KEYS = ("skill", "variant", "rows")
_SHARED = SHIPPED / "smollm2-135m"
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


def variant(vectors: Vectors, name: str) -> Vectors:
    """A skill's vectors in one of `VARIANTS`: removed parts are made neutral, for "base" all of them."""
    if name == "whole":
        return vectors
    if name == "4 bits":
        return four_bits(vectors)
    left_out = name.removeprefix("no ")

    def removed(vector: str) -> bool:
        return name == "base" or left_out in (kind_of(vector), module_of(vector).rpartition(".")[2])

    return {
        vector: np.full_like(values, NEUTRAL[kind_of(vector)]) if removed(vector) else values
        for vector, values in vectors.items()
    }


def jobs(rows: int) -> Iterator[Record]:
    """Every variant of every skill, the most informative first."""
    for name in VARIANTS:
        for skill in SKILLS:
            yield {"skill": skill, "variant": name, "rows": rows}


@click.command()
@click.option("--data", type=_FOLDER, required=True, help="Folder with skills/TASK/test.jsonl.")
@click.option("--rows", default=48, show_default=True, help="Most test rows.")
@click.option("--minutes", type=float, help="Start no further variant after this long.")
@click.option("--results", type=click.Path(file_okay=False, path_type=Path), default=RESULTS, help="Folder of results.")
def main(data: Path, rows: int, minutes: float | None, results: Path) -> None:
    """Measure the variants that have no result yet."""
    torch.set_num_threads(1)
    model, tokenizer, _ = prepare(_SHARED, Recipe("skill"), backbone.training_dtype())

    def run(job: Record) -> Record:
        found = read_rows(data / "skills" / SKILLS[job["skill"]] / "test.jsonl")
        cut = Instruction() if job["variant"] == "base" else Instruction.of(found)  # the skills carry it
        some = [cut.cut(row) for row in random.Random(0).sample(found, min(rows, len(found)))]
        skill = read_skill(_SHARED / "skills" / f"{job['skill']}.lime")
        checkpoint.set_vectors(model, variant(skill.tensors, job["variant"]))
        return {"loss": loss(model, tokenizer, some)}

    lines = Lines(results / "skill-parts.jsonl", KEYS)
    click.echo(f"{run_missing(lines, jobs(rows), run, minutes)} measured")


if __name__ == "__main__":
    main()
