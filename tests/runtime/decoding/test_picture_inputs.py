"""What the graph is fed of pictures, and that nothing is fed without one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from lime_edge.runtime.decoding.picture_inputs import feed_tokens, positions_in_space
from lime_edge.runtime.model.pictures import Picture, Pictures


class Fed:
    """In place of a binding: what was fed."""

    def __init__(self) -> None:
        self.inputs: dict[str, Any] = {}

    def feed(self, name: str, values: Any) -> None:
        self.inputs[name] = values.copy()

    def feeds(self, name: str) -> bool:
        return name in self.inputs


def graph(pictures: Pictures | None) -> Any:
    names = SimpleNamespace(input_ids="ids")
    return SimpleNamespace(directory=SimpleNamespace(names=names), pictures=pictures)


def shown(store: Pictures, count: int = 4, grid: Any = None) -> Picture:
    return store.get(f"{count}", lambda: Picture(np.ones((count, 2), np.float32) * count, (count,), "image", 9, grid))


def test_text_feeds_nothing_else() -> None:
    for pictures in (None, Pictures()):
        binding: Any = Fed()
        feed_tokens(graph(pictures), binding, np.array([[1, 2]]))
        assert list(binding.inputs) == ["ids"]


def test_pictures_and_then_text() -> None:
    store, binding = Pictures(), Fed()
    ids = np.array([[1, *shown(store).ids, 2]])
    feed_tokens(graph(store), binding, ids)  # type: ignore[arg-type]
    assert binding.inputs["ids"].tolist() == [[1, 9, 9, 9, 9, 2]]
    assert binding.inputs["lime.feature_ids"].tolist() == [[-1, 0, 1, 2, 3, -1]]
    assert binding.inputs["lime.features"].tolist() == [[4.0, 4.0]] * 4
    feed_tokens(graph(store), binding, np.array([[5]]))  # type: ignore[arg-type]
    assert binding.inputs["ids"].tolist() == [[5]]
    assert binding.inputs["lime.feature_ids"].tolist() == [[-1]]  # of the features, none is read


def test_positions_go_on_after_what_the_row_holds() -> None:
    store = Pictures()
    picture = shown(store, 4, (1, 2, 2))
    row = np.array([7, *picture.ids, 7, 7])
    known, new = [row[:3], np.array([7, 7, 7])], np.stack([row[3:6], [1, 2, 3]])
    plain = np.array([[3, 4, 5], [3, 4, 5]])
    found = positions_in_space(graph(store), known, new, plain)
    assert found[:, 0].tolist() == [[1, 1, 3], [2, 2, 3], [1, 2, 3]]  # two features and the token after them
    assert found[:, 1].tolist() == [[3, 4, 5]] * 3  # text alone
