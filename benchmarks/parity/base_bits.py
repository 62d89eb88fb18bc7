"""Checks that an exported model without a skill computes the same bits as the builder's graph.

The embedding table of an untied int4 model is first rounded to 8 bits in the builder's graph, too.

    python -m benchmarks.parity.base_bits EXPORTED [-m default]

Both run on random prompts of several lengths, and on one further token with the cache.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from lime_edge.contract.model import read_contract
from lime_edge.contract.names import GRAPH_FILE, WEIGHTS_FILE
from lime_edge.exporters.genai_builder import build_backbone
from lime_edge.exporters.passes.quantise_embedding import QuantiseEmbedding
from lime_edge.training import backbone

_LENGTHS = (1, 2, 7, 33, 128)


@click.command()
@click.argument("exported", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-m", "--model", default=backbone.DEFAULT, show_default=True)
def main(exported: Path, model: str) -> None:
    """Compare logits of prompts and of a cached step; exit with status 1 if any value differs."""
    precision: Any = read_contract(exported).precision
    head = int(json.loads((exported / "genai_config.json").read_text("utf-8"))["model"]["decoder"]["head_size"])
    rng, differing = np.random.default_rng(0), 0
    with tempfile.TemporaryDirectory() as scratch:
        build_backbone(backbone.resolve(model), Path(scratch) / "plain", precision)
        graph = ir.load(Path(scratch) / "plain" / GRAPH_FILE)
        if precision == "int4":
            QuantiseEmbedding()(graph)
        ir.save(graph, Path(scratch) / GRAPH_FILE, external_data=WEIGHTS_FILE)
        ours, plain = (_session(path) for path in (exported, Path(scratch)))
        for length in _LENGTHS:
            ids = rng.integers(10, 40_000, (2, length))
            for one, other in zip(_run(ours, head, ids), _run(plain, head, ids), strict=True):
                differing += int((one != other).sum())
    click.echo(
        f"{precision}: {2 * len(_LENGTHS)} rows of {_LENGTHS} tokens, a cached step after each: {differing} differ"
    )
    raise SystemExit(differing > 0)


def _session(directory: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(str(directory / "model.onnx"), options, providers=["CPUExecutionProvider"])


def _run(
    session: ort.InferenceSession, head: int, ids: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Logits of the prompts, and of one further token on the cache."""
    past = [value for value in session.get_inputs() if value.name.startswith("past_key_values")]
    empty = {v.name: np.zeros((len(ids), v.shape[1], 0, head), _dtype(v.type)) for v in past}
    outputs = [output.name for output in session.get_outputs()]
    first = dict(
        zip(outputs, session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids), **empty}), strict=True)
    )
    cached = {v.name: first[v.name.replace("past_key_values", "present")] for v in past}
    mask = np.ones((len(ids), ids.shape[1] + 1), np.int64)
    then = session.run(["logits"], {"input_ids": ids[:, :1], "attention_mask": mask, **cached})
    return first["logits"], then[0]


def _dtype(kind: str) -> npt.DTypeLike:
    return np.float16 if kind == "tensor(float16)" else np.float32


if __name__ == "__main__":
    main()
