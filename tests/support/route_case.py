"""A tiny model that can choose skills, and skills with centroids: requests of one kind are made of the same words."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lime_edge.contract.names import ROUTE_FILE
from lime_edge.evaluation.examples import Row
from lime_edge.exporters import AdapterWeights, export
from lime_edge.runtime import Runtime
from lime_edge.skills.package import read_skill, write_skill
from lime_edge.skills.route_statistics import RouteStatistics, read_statistics, write_statistics
from lime_edge.training.package_parts.route_fit import fit_route, fit_statistics
from lime_edge.training.package_parts.route_states import states_of
from tests.support import runtime_models

WORDS = {"legal": ["law", "lease"], "shell": ["grep", "chmod"], "music": ["song", "album"]}
OTHERS = [
    ["one", "two"],
    ["red", "green"],
    ["cat", "dog"],
    ["AAA", "BBB"],
    ["é", "中"],
    ["22", "4444"],
    ["?", ";"],
    ["Monday", "June"],
    ["he", "they"],
    ["jump", "swim"],
]


def texts(words: list[str], count: int, seed: int = 0) -> list[str]:
    """Requests of some of the words, in any order."""
    rng = np.random.default_rng([seed, *"".join(words).encode()])
    return [" ".join(rng.choice(words, rng.integers(6, 12))) for _ in range(count)]


def rows(requests: list[str]) -> list[Row]:
    return [Row(({"role": "user", "content": text},), "yes") for text in requests]


def states(requests: list[str]) -> npt.NDArray[np.float32]:
    """Scaled states of the tiny model's only inner layer."""
    return states_of(*_backbone(), rows(requests), 1)


@cache
def _backbone() -> tuple[Any, Any]:
    source = runtime_models.scratch() / "llama"
    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(source)


@cache
def statistics() -> tuple[RouteStatistics, Path]:
    """Statistics of the other words, and their file."""
    runtime_models.exported()  # makes the backbone
    path = runtime_models.scratch() / ROUTE_FILE
    given = [(number, texts(words, 24)) for number, words in enumerate(OTHERS)]
    found = np.concatenate([states(some) for _, some in given])
    kinds = [str(number) for number, some in given for _ in some]
    asked = tuple(texts(OTHERS[0], 4))
    fitted = replace(fit_statistics(found, kinds, 1), reference=states(list(asked)).mean(0), texts=asked)
    return write_statistics(path, fitted), path


def routable(precision: Any = "fp32") -> Path:
    """A tiny exported model directory that can choose; tests must not write to it."""
    _, path = statistics()
    found, digest = read_statistics(path)
    target = runtime_models.scratch() / f"routable-{precision}"
    if target.exists():
        return target
    weights: AdapterWeights = runtime_models.weights()
    export(weights, runtime_models.scratch() / "llama", target, precision, route=(found.settings(digest), path))
    return target


def skill(directory: Path, name: str, **manifest: Any) -> Path:
    """A random skill with the centroids of its words' requests."""
    path = runtime_models.skill(directory, name, **manifest)
    plain, route = read_skill(path), fit_route(states(texts(WORDS[name], 40)), statistics()[0])
    return write_skill(path, plain.manifest, plain.tensors, "f16", plain.draft, route).path


def runtime(*names: str, precision: Any = "fp32", prefix_cache: int = 2**20, **manifest: Any) -> Runtime:
    """A runtime with such skills."""
    made = Runtime.load(routable(precision), threads=1, prefix_cache=prefix_cache)
    for name in names:
        made.load_skill(skill(routable(precision), name, **manifest))
    return made
