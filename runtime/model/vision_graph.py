"""The graph that turns pictures into features, and the contract that says how pictures are prepared for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.contract.names import (
    FEATURE_IDS,
    FEATURES,
    PATCH_POSITIONS,
    PIXEL_VALUES,
    SEGMENT_IDS,
    VISION_FEATURES,
    VISION_FILE,
    VISION_JSON,
    VISION_NEWLINE,
    WINDOW_IDS,
)
from lime_edge.contract.vision import VisionContract, read_vision
from lime_edge.errors import ModelError

from .directory import ModelDirectory
from .session import Graph, SessionSettings, open_session

Array = npt.NDArray[Any]

_TILES = 8  # tiles in one run: more need much memory at once and are no faster


class VisionGraph:
    """vision.onnx of one model directory. May be run by several threads at once.

    Args:
        directory: A validated model directory that lists the file.
        graph: The decoder of the same directory, which reads the features.
        settings: How to run it; it needs no native operators and is not mapped.

    Raises:
        ModelError: vision.json is invalid, ONNX Runtime refuses the graph, or graph, decoder and contract do not fit.
    """

    def __init__(self, directory: ModelDirectory, graph: Graph, settings: SessionSettings) -> None:
        self.contract = read_vision(directory.path)
        plain = dataclasses.replace(settings, operators=None, mapped=None)
        self._session = open_session(directory.path / VISION_FILE, plain, graph.device)
        if faults := [*_faults(self._session, self.contract), *_decoder_faults(graph, self.contract)]:
            raise ModelError(f"{directory.path}: vision graph and {VISION_JSON} do not fit: export again", faults)
        self._outputs = [value.name for value in self._session.get_outputs()]

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for the inputs of one picture or video, by name.

        Raises:
            ModelError: ONNX Runtime failed, or the features are not finite.
        """
        whole = self.contract.patches is not None  # all patches of a picture see each other
        count = len(arrays[PIXEL_VALUES])
        step = count if whole else _TILES
        runs = [self._run({name: a[at : at + step] for name, a in arrays.items()}) for at in range(0, count, step)]
        made = dict(runs[0])
        made[VISION_FEATURES] = np.concatenate([run[VISION_FEATURES] for run in runs])
        if not all(np.isfinite(array).all() for array in made.values()):
            raise ModelError("the vision graph's features are not finite: export again with --vision fp32")
        return made

    def _run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        try:
            made = self._session.run(self._outputs, dict(arrays))
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise ModelError(f"ONNX Runtime could not run the vision graph: {error}") from error
        return dict(zip(self._outputs, made, strict=True))


def sees(directory: ModelDirectory) -> bool:
    """Whether a model directory has a vision graph."""
    return VISION_FILE in dict(directory.contract.files)


def _faults(session: Any, contract: VisionContract) -> Iterator[str]:
    """What the graph lacks, by its contract."""
    wanted = {PIXEL_VALUES}
    if contract.patches is not None:
        wanted |= {PATCH_POSITIONS, SEGMENT_IDS} | ({WINDOW_IDS} if contract.patches.window else set())
    found = {value.name for value in session.get_inputs()}
    if found != wanted:
        yield f"the vision graph has the inputs {', '.join(sorted(found))}; expected {', '.join(sorted(wanted))}"
    outputs = {value.name: value for value in session.get_outputs()}
    needed = [VISION_FEATURES, *([VISION_NEWLINE] if contract.family == "llava_onevision" else [])]
    for name in needed:
        if name not in outputs:
            yield f"the vision graph has no output {name!r}"
        elif outputs[name].type != "tensor(float)":
            yield f"the vision graph's {name!r} is {outputs[name].type}; expected float"
        elif outputs[name].shape[-1] not in (contract.features, None) and isinstance(outputs[name].shape[-1], int):
            yield f"the vision graph's {name!r} has {outputs[name].shape[-1]} values; expected {contract.features}"


def _decoder_faults(graph: Graph, contract: VisionContract) -> Iterator[str]:
    """What the decoder lacks to read features."""
    for name, kind in ((FEATURES, "tensor(float)"), (FEATURE_IDS, "tensor(int64)")):
        if graph.type_of(name) != kind:
            yield f"the decoder's input {name!r} is {graph.type_of(name) or 'missing'}; expected {kind}"
    if graph.has_positions and graph.rotary_3d != contract.rotary_3d:
        yield f"the decoder has {3 if graph.rotary_3d else 1} positions a token, {contract.family} has the other number"
    tokens = [contract.image_token_id, *([contract.video_token_id] if contract.video_token else [])]
    yield from (f"token id {one}; the vocabulary has {graph.vocabulary}" for one in tokens if one >= graph.vocabulary)
