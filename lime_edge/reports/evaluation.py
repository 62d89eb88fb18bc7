"""Reports the results of an evaluation, as JSON values and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lime_edge.common.formatting import share, short
from lime_edge.evaluation.evaluate import Result
from lime_edge.evaluation.examples import Row, data_digest

from .tables import Table

if TYPE_CHECKING:
    from lime_edge.runtime import Runtime


def summary(
    runtime: Runtime, data: Path, rows: Sequence[Row], results: Sequence[Result]
) -> tuple[dict[str, Any], list[Table]]:
    """Describe one evaluation.

    Args:
        runtime: The model that was measured.
        data: Where the rows were read from.
        rows: The rows; accuracy is reported if all have choices, exact match and F1 otherwise.
        results: One result for each skill and the base model.

    Returns:
        The facts as plain JSON values, and a table with the same facts for people.
    """
    contract = runtime.contract
    only_choices = all(row.choices for row in rows)
    metrics = {"accuracy": "exact"} if only_choices else {"exact match": "exact", "f1": "f1"}
    document = {
        "data": str(data),
        "dataset": data_digest(rows),
        "rows": len(rows),
        "model": {"backbone": contract.backbone_name, "precision": contract.precision, "graph": contract.graph_digest},
        "results": [
            {"skill": result.skill, "digest": result.digest, "seconds": round(result.seconds, 2)}
            | {name: round(getattr(result.score, key), 4) for name, key in metrics.items()}
            for result in results
        ],
    }
    lines = [
        [
            result.skill or "base",
            *(share(getattr(result.score, key)) for key in metrics.values()),
            f"{result.seconds:.1f}",
        ]
        for result in results
    ]
    title = f"{len(rows)} rows of {data} ({short(str(document['dataset']))}), {contract.precision}"
    return document, [Table(title, lines, ("", *metrics, "seconds"), range(1, len(metrics) + 2))]
