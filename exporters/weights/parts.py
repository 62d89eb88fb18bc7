"""Counts the bytes of a graph's weights by part: embedding, output head, projections, shared adapter."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir

from lime_edge.contract.names import DOMAIN

EMBEDDING, HEAD, ADAPTER, OTHER = "embedding", "output head", "shared adapter", "other"
_PROJECTION = re.compile(r"/layers\.\d+/(?:attn|mlp)/(\w+_proj)/")


def weight_parts(graph: ir.Graph) -> tuple[tuple[str, int], ...]:
    """The bytes of every part, largest first.

    A projection counts for all layers together. A table that embedding and output head share is a part of its own.
    """
    counts: Counter[str] = Counter()
    for value in graph.initializers.values():
        if value.const_value is not None:
            counts[" and ".join(sorted(set(_users(value)))) or OTHER] += value.const_value.nbytes
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _users(value: ir.Value) -> Iterator[str]:
    """The part of every node that reads an initializer."""
    for node in value.consumers():
        name = node.name or ""
        if value.is_graph_input():  # the default of an optional input
            yield OTHER
        elif node.domain == DOMAIN:
            yield ADAPTER
        elif match := _PROJECTION.search(name):
            yield match[1]
        elif "/embed_tokens/" in name:
            yield EMBEDDING
        elif name.startswith("/lm_head/"):
            yield HEAD
        else:
            yield OTHER
