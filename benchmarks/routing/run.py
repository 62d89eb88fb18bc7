"""How often the right skill is chosen by the request alone, and how often none, against two rivals.

    python -m benchmarks.routing.run CHECKPOINT --data DATA [--background FILE] [--encoder FOLDER] [--json FILE]

CHECKPOINT has statistics (`lime-edge route`). Skills are nine skill data sets and three classification sets; only their
centroids are needed, so nothing is trained. Requests are bare. Requests for none of them are other tasks, small talk,
other languages and noise; tasks of which the statistics were made are left out. Rates of "none" are at the calibrated
threshold, and, for all methods alike, at the threshold that loses 3 % of the skills' own test requests.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.harness.rounds import machine
from lime_edge.contract.names import ROUTE_FILE
from lime_edge.skills.route_statistics import read_statistics
from lime_edge.training import backbone, checkpoint

from .methods import Encoder, Method, States, TfIdf
from .texts import CLASSIFICATION, Requests, foreign, skills

_LOST = 0.03
_COVERAGE = (1.0, 0.99, 0.97, 0.95, 0.9, 0.8, 0.7)  # shares of the own requests that are kept


def measure(method: Method, sets: Sequence[Requests], others: dict[str, list[str]]) -> dict[str, Any]:
    """One method on all requests."""
    asked = [text for one in sets for text in one.test]
    owner = np.array([number for number, one in enumerate(sets) for _ in one.test])
    kinds = [kind for kind, texts in others.items() for _ in texts]
    none, found = method.scores(
        [one.train for one in sets], [*asked, *(text for texts in others.values() for text in texts)]
    )
    margins, chosen = found.max(1) - none, found.argmax(1)
    own, rest = margins[: len(asked)], margins[len(asked) :]
    right = chosen[: len(asked)] == owner
    confusion = np.zeros((len(sets), len(sets)), int)
    np.add.at(confusion, (owner, chosen[: len(asked)]), 1)
    at = {str(kept): np.quantile(own, 1 - kept) for kept in _COVERAGE}
    return {
        "method": method.name,
        "skills": [one.name for one in sets],
        "requests": len(asked),
        "right": float(right.mean()),
        "lost": float((own < 0).mean()),
        "to_base": _shares(rest < 0, kinds),
        "to_base_at_3": _shares(rest < np.quantile(own, _LOST), kinds),
        "area": _area(own, rest),
        "confusion": confusion.tolist(),
        "coverage": {
            kept: {"right": float(right[own >= least].mean()), "to_base": float((rest < least).mean())}
            for kept, least in at.items()
        },
    }


@click.command()
@click.argument("directory", metavar="CHECKPOINT", type=click.Path(exists=True, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="The folder of data sets.")
@click.option("--background", type=click.Path(exists=True, path_type=Path), help="JSON list of their tasks.")
@click.option("--encoder", type=click.Path(exists=True, path_type=Path), help="model.onnx and tokenizer.json.")
@click.option("--train", default=100, show_default=True, help="Requests of each skill to learn centroids from.")
@click.option("--test", default=80, show_default=True, help="Requests of each skill to choose for.")
@click.option("--foreign-rows", default=4, show_default=True, help="Requests of each other task.")
@click.option("--json", "target", type=click.Path(path_type=Path), help="Write the results here.")
def main(
    directory: Path,
    data: Path,
    background: Path | None,
    encoder: Path | None,
    train: int,
    test: int,
    foreign_rows: int,
    target: Path | None,
) -> None:
    """Measure all methods on nine skills, and on twelve."""
    statistics, digest = read_statistics(directory / ROUTE_FILE)
    where = checkpoint.read_config(directory).base_model_name_or_path or backbone.DEFAULT
    model, tokenizer = backbone.load(backbone.resolve(where), backbone.training_dtype())
    sets, names = skills(data, train, test), [folder.rpartition("/")[2] for folder in CLASSIFICATION]
    known = set(json.loads(background.read_text("utf-8"))) if background else set[str]()
    others = foreign(data, known, foreign_rows)
    methods: list[Method] = [States(statistics, model.eval(), tokenizer), TfIdf()]
    methods += [Encoder(encoder)] if encoder else []
    nine = [one for one in sets if one.name not in names]
    results = [measure(method, some, others) for method in methods for some in (nine, sets)]
    for result in results:
        kinds = ", ".join(f"{kind} {share:.1%}" for kind, share in result["to_base_at_3"].items())
        print(f"{result['method']}, {len(result['skills'])} skills: right {result['right']:.1%}; to the base: {kinds}")
    document = {
        "machine": machine(),
        "statistics": {"digest": digest, "layer": statistics.layer, "temperature": statistics.temperature},
        "foreign": {kind: len(texts) for kind, texts in others.items()},
        "results": results,
    }
    if target is not None:
        target.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def _shares(caught: npt.NDArray[np.bool_], kinds: Sequence[str]) -> dict[str, float]:
    named = np.array(kinds)
    return {kind: float(caught[named == kind].mean()) for kind in dict.fromkeys(kinds)}


def _area(own: npt.NDArray[np.float64], rest: npt.NDArray[np.float64]) -> float:
    """Area under the curve: how often an own request has a larger margin than a foreign one."""
    ranks = np.concatenate([own, rest]).argsort().argsort()
    return float((ranks[: len(own)].sum() - len(own) * (len(own) - 1) / 2) / (len(own) * len(rest)))


if __name__ == "__main__":
    main()
