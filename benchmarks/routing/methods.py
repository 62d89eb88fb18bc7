"""Ways to choose a skill by a request: states of the frozen backbone, words, and a sentence encoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from tokenizers import Tokenizer

from lime_edge.evaluation.examples import Row
from lime_edge.runtime.routing.state_space import Mixtures, StateSpace
from lime_edge.skills.route_statistics import RouteStatistics
from lime_edge.training.package_parts.route_fit import fit_route
from lime_edge.training.package_parts.route_states import states_of

Float64 = npt.NDArray[np.float64]


class Method(Protocol):
    """Scores requests: the higher, the likelier."""

    name: str

    def scores(self, learned: Sequence[Sequence[str]], asked: Sequence[str]) -> tuple[Float64, Float64]:
        """Scores [n] of "none" and [n, k] of each of k skills, whose requests `learned` holds."""
        ...


class States:
    """The product's own: mixtures in the space of a checkpoint's statistics."""

    name = "states of the frozen backbone"

    def __init__(self, statistics: RouteStatistics, model: Any, tokenizer: Any) -> None:
        self._statistics, self._model, self._tokenizer = statistics, model, tokenizer
        self._space = StateSpace(statistics)

    def scores(self, learned: Sequence[Sequence[str]], asked: Sequence[str]) -> tuple[Float64, Float64]:
        routes = [fit_route(self._states(texts), self._statistics) for texts in learned]
        centroids = [route.centroids.astype(np.float16).astype(np.float32) for route in routes]
        mixtures = Mixtures([self._space.place(one) for one in (self._statistics.none, *centroids)])
        points = self._space.project(self._states(asked))
        found = np.stack([self._space.log_likelihoods(point, mixtures) for point in points])
        return found[:, 0] + self._statistics.threshold, found[:, 1:]

    def _states(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """In the order of the texts, each read as a request of its own."""
        order = sorted(range(len(texts)), key=lambda at: len(self._ids(texts[at])))
        rows = [Row(({"role": "user", "content": texts[at]},), "") for at in order]
        found = states_of(self._model, self._tokenizer, rows, self._statistics.layer)
        back = np.empty_like(found)
        back[order] = found
        return back

    def _ids(self, text: str) -> list[int]:
        from lime_edge.training.dataset import encode_prompt

        return encode_prompt(self._tokenizer, [{"role": "user", "content": text}])[0]


class TfIdf:
    """Cosine to the mean of a skill's requests, as bags of words and pairs of words, weighted by rarity."""

    name = "TF-IDF centroids"

    def scores(self, learned: Sequence[Sequence[str]], asked: Sequence[str]) -> tuple[Float64, Float64]:
        texts = [text for some in learned for text in some]
        rarity = Counter(word for text in texts for word in set(_words(text)))
        number = {word: at for at, word in enumerate(rarity)}
        weights = np.array([np.log(len(texts) / (1 + count)) + 1 for count in rarity.values()])

        def vectors(some: Sequence[str]) -> Float64:
            found = np.zeros((len(some), len(number)))
            for row, text in enumerate(some):
                for word in _words(text):
                    if word in number:
                        found[row, number[word]] += 1
            return _unit(found * weights)

        return _cosines([vectors(some) for some in learned], vectors(asked))


class Encoder:
    """Cosine to the mean of a skill's requests, embedded by a sentence encoder in ONNX (mean of the last states)."""

    def __init__(self, folder: Path) -> None:
        self.name = f"sentence encoder {folder.name}"
        self._session = ort.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(256)

    def scores(self, learned: Sequence[Sequence[str]], asked: Sequence[str]) -> tuple[Float64, Float64]:
        return _cosines([self._embed(some) for some in learned], self._embed(asked))

    def _embed(self, texts: Sequence[str]) -> Float64:
        found = []
        for text in texts:
            encoded = self._tokenizer.encode(text)
            given = {
                "input_ids": encoded.ids,
                "attention_mask": encoded.attention_mask,
                "token_type_ids": encoded.type_ids,
            }
            feeds = {one.name: np.array([given[one.name]], np.int64) for one in self._session.get_inputs()}
            states = self._session.run(None, feeds)[0]
            found.append(states[0].mean(0) if states.ndim == 3 else states[0])
        return _unit(np.stack(found).astype(np.float64))


def _cosines(learned: Sequence[Float64], asked: Float64) -> tuple[Float64, Float64]:
    centroids = _unit(np.stack([some.mean(0) for some in learned]))
    return np.zeros(len(asked)), asked @ centroids.T


def _words(text: str) -> list[str]:
    words = text.lower().split()
    return [*words, *(" ".join(pair) for pair in pairwise(words))]


def _unit(vectors: Float64) -> Float64:
    found: Float64 = vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-12)
    return found
