"""Runs the frozen tower of a vision-language model, and keeps its features on disk by the digest of the picture."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from lime_edge.common.files import write_file
from lime_edge.contract.names import VISION_FILE
from lime_edge.contract.vision import VisionContract
from lime_edge.exporters.towers.tower_family import TowerFamily

Array = npt.NDArray[Any]

_FILES_LIMIT = 2**33  # bytes of features of one tower on disk


class FrozenTower:
    """The tower and projector of a model, in float32.

    Towers with depthwise convolutions run as a graph in ONNX Runtime, which computes these ten times as fast as torch
    on a CPU; without the extra `export`, they run in torch.

    Args:
        model: The transformers model, in evaluation mode.
        family: Its family.
        contract: Its contract.
    """

    def __init__(self, model: Any, family: TowerFamily, contract: VisionContract) -> None:
        self._model, self._family, self._contract = model, family, contract
        self._module = family.tower(model).eval()
        self._session: Any = None

    def weights(self) -> Iterator[tuple[str, Array]]:
        """Everything that features depend on, by name; not the language model, which some modules also hold."""
        decoder = {value.data_ptr() for value in self._model.get_decoder().state_dict().values()}
        for name, value in sorted(self._module.state_dict().items()):
            if value.data_ptr() not in decoder:
                yield name, value.detach().float().cpu().numpy()

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of vision.onnx by name, from its inputs by name."""
        if self._session is None and self._has_depthwise() and find_spec("onnxscript"):
            self._session = self._as_graph()
        if self._session is not None:
            found = self._session.run(list(self._family.outputs), dict(arrays))
            return dict(zip(self._family.outputs, found, strict=True))
        device = next(self._module.parameters()).device
        given = [torch.from_numpy(np.array(arrays[name])).to(device) for name in self._family.inputs]
        with torch.no_grad():
            out = self._module(*given)
        values = out if isinstance(out, tuple) else (out,)
        return {name: value.float().cpu().numpy() for name, value in zip(self._family.outputs, values, strict=True)}

    def _has_depthwise(self) -> bool:
        return any(isinstance(part, nn.Conv2d) and part.groups > 1 for part in self._module.modules())

    def _as_graph(self) -> Any:
        import onnxruntime

        from lime_edge.exporters.towers.vision_graph import export_tower

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        with TemporaryDirectory() as folder:
            probe = self._family.probe(self._model, self._contract)
            export_tower(self._model, self._family, probe, Path(folder))
            return onnxruntime.InferenceSession(
                str(Path(folder) / VISION_FILE), options, providers=["CPUExecutionProvider"]
            )


class FeatureFiles:
    """Features of pictures as files named by digest.

    Losing one costs its computation: files that cannot be read or written are as if they were not there.

    Args:
        folder: Created when the first features are written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bytes: int | None = None

    def read(self, digest: str) -> Array | None:
        """Features [F, H], or None."""
        with suppress(OSError, ValueError, EOFError):
            return np.asarray(np.load(self._path(digest), allow_pickle=False))
        return None

    def write(self, digest: str, features: Array) -> None:
        """Keep features as they are: the first run then has the numbers of every later one."""
        if self._bytes is None:
            with suppress(OSError):
                self._folder.mkdir(parents=True, exist_ok=True)
            self._bytes = sum(path.stat().st_size for path in self._folder.glob("*.npy"))
        out = io.BytesIO()
        np.save(out, features, allow_pickle=False)
        if self._bytes + out.tell() <= _FILES_LIMIT:
            with suppress(OSError):
                write_file(self._path(digest), out.getvalue())
                self._bytes += out.tell()

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.npy"
