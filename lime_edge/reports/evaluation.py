"""Reports the results of an evaluation, as JSON values and as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lime_edge.common.files import write_file
from lime_edge.common.formatting import share, short
from lime_edge.errors import ConfigError
from lime_edge.evaluation.evaluate import Result
from lime_edge.evaluation.examples import Row, data_digest

from .tables import Table

if TYPE_CHECKING:
    from lime_edge.runtime import Runtime


def summary(
    runtime: Runtime, data: Path, rows: Sequence[Row], results: Sequence[Result], left_out: int = 0
) -> tuple[dict[str, Any], list[Table]]:
    """Describe one evaluation.

    Args:
        runtime: The model that was measured.
        data: Where the rows were read from.
        rows: The rows; accuracy is reported if all have choices, exact match and F1 otherwise.
        results: One result for each skill and the base model; while the evaluation runs, the last one is partial.
        left_out: Number of rows that were not measured because they do not fit into the context.

    Returns:
        The facts as plain JSON values, and a table with the same facts for people.
    """
    contract = runtime.contract
    only_choices = all(row.choices for row in rows)
    metrics = {"accuracy": "exact"} if only_choices else {"exact match": "exact", "f1": "f1"}
    document = {
        "complete": True,
        "data": str(data),
        "dataset": data_digest(rows),
        "rows": len(rows),
        "left_out": left_out,
        "model": {"backbone": contract.backbone_name, "precision": contract.precision, "graph": contract.graph_digest},
        "results": [
            {
                "skill": result.skill,
                "digest": result.digest,
                "rows": result.score.rows,
                "seconds": round(result.seconds, 2),
                "instruction_cut": result.cut,
            }
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
    title += f"; {left_out} rows left out as too long" if left_out else ""
    bare = [result.skill for result in results if result.skill and result.cut]
    title += f"; asked without the instruction of the rows: {', '.join(bare)}" if bare else ""
    return document, [Table(title, lines, ("", *metrics, "seconds"), range(1, len(metrics) + 2))]


class Kept:
    """Keeps the results of a running evaluation in a file, which always holds the whole of a valid document.

    The document is that of `summary` with ``"complete": false``, and with the rows that each result is on.

    Args:
        path: The file; None keeps nothing.
        runtime, data, rows, left_out: As for `summary`.
    """

    def __init__(self, path: Path | None, runtime: Runtime, data: Path, rows: Sequence[Row], left_out: int) -> None:
        self._path, self._facts = path, (runtime, data, rows)
        self._left_out = left_out
        self._done: list[Result] = []

    def partial(self, result: Result) -> None:
        """Write the results so far.

        Raises:
            ConfigError: The file cannot be written.
        """
        if self._path is None:
            return
        document, _ = summary(*self._facts, [*self._done, result], self._left_out)
        try:
            write_file(self._path, (json.dumps({**document, "complete": False}, indent=2) + "\n").encode())
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be written: {error.strerror or error}") from error

    def complete(self, result: Result) -> None:
        """Add the result of a skill on all rows."""
        self._done.append(result)
