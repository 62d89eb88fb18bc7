"""Sessions: devices, threads, graphs that do not match their contract, and placed arrays."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from lime_edge.errors import ConfigError, DeviceError, ModelError
from lime_edge.runtime import Runtime
from lime_edge.runtime.model import session
from lime_edge.runtime.model.session import SessionSettings, open_session
from tests.support.runtime_models import edit_json, exported, runtime


def test_a_graph_without_a_bank(tmp_path: Path) -> None:
    """The contract promises a routing window that the graph does not have."""
    copied = shutil.copytree(exported(), tmp_path / "model")
    edit_json(copied / "lime.json", lambda document: document["routing"].update(window=2))
    with pytest.raises(ModelError) as caught:
        Runtime.load(copied, threads=1)
    assert caught.value.faults == (
        "no input or output 'lime.past_evidence'",
        "no input or output 'lime.evidence'",
    )


@pytest.mark.parametrize("name", ["device", "operators", "threads", "spin", "prefix_cache"])
@pytest.mark.parametrize("value", [np.array([0, 1, 2]), [1], 1.5, object()])
def test_values_of_any_type_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        Runtime.load(exported(), **{"threads": 1, name: value})


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as caught:
        Runtime.load(exported(), device="tpu", threads=0, spin=-1)
    assert len(caught.value.faults) == 3
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceError) as missing:
        Runtime.load(exported(), device="cuda")
    assert "needs CUDAExecutionProvider; this onnxruntime has CPUExecutionProvider" in str(missing.value)
    assert "pip install 'lime-edge[cuda]'" in str(missing.value)
    assert Runtime.load(exported(), device="auto", threads=1).device == "cpu"


def test_a_library_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a library of LiME operators for this machine"):
        Runtime.load(exported(), threads=1, operators=tmp_path / "nope.so")


@pytest.mark.parametrize(("asked", "cores", "threads"), [(None, 3, 3), (2, 3, 2), (None, None, 0)])
def test_sessions_get_them(monkeypatch: pytest.MonkeyPatch, asked: int | None, cores: int | None, threads: int) -> None:
    seen = []

    class Recording(ort.SessionOptions):  # type: ignore[misc]
        def register_custom_ops_library(self, path: str) -> None: ...

    monkeypatch.setattr(ort, "SessionOptions", Recording)

    class Session:
        def __init__(self, path: str, options: ort.SessionOptions, **_: object) -> None:
            seen.append(options.intra_op_num_threads)

    monkeypatch.setattr(ort, "InferenceSession", Session)
    monkeypatch.setattr(session, "usable_cores", lambda: cores)
    open_session(exported() / "model.onnx", SessionSettings(threads=asked, operators=None))
    assert seen == [threads]


@pytest.mark.parametrize(
    ("version", "asked", "wanted"),
    [
        ("1.32.0", None, session.SPIN),
        ("1.26.1", None, session.SPIN),
        ("1.25.1", None, 0),
        ("1.25.1", 7, 7),
        ("1.32.0", 0, 0),
    ],
)
def test_how_long_threads_stay_awake(
    monkeypatch: pytest.MonkeyPatch, version: str, asked: int | None, wanted: int
) -> None:
    monkeypatch.setattr(ort, "__version__", version)
    options = session._options(SessionSettings(spin=asked), None)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == ("1" if wanted else "0")
    assert options.get_session_config_entry("session.intra_op.spin_duration_us") == str(wanted)


def test_the_graph_places_an_array_once() -> None:
    graph = runtime(exported())._graph
    one, other = (np.full((2, 4), number, np.float32) for number in (1, 2))
    assert graph.place(one) is graph.place(one)
    placed = graph.place(one)
    assert graph.place(other) is not placed
    assert graph.place(other).numpy()[0, 0] == 2
    assert graph.place(one).numpy()[0, 0] == 1
