"""Statistics of a frozen backbone's states, which the states of requests are compared with to choose a skill.

They belong to a checkpoint: what its training data and general text look like inside the backbone. The file is a
safetensors file with four tensors in F16, in a checkpoint and in the model directories exported from it.
Format: docs/routing.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.common.digests import canonical_json
from lime_edge.common.files import read_bounded, reason, write_file
from lime_edge.common.strict_json import bounded, load_json, number, one_of, record, sequence, show, text, whole
from lime_edge.contract.route_settings import LAYER_LIMIT, RouteSettings
from lime_edge.errors import ModelError

from .route import WIDTH_LIMIT
from .safetensors_file import pack, unpack

Float32 = npt.NDArray[np.float32]

NONE_LIMIT = 1024  # centroids of "none"
_RANK_LIMIT = 4096  # r
_FILE_LIMIT = 2**27  # bytes
_TEXTS_LIMIT = 64
_KEY = "route"
_NUMBER = number(-1e6, 1e6)
_META = record(
    {
        "format": whole(1, 1),
        "layer": whole(0, LAYER_LIMIT),
        "pooling": one_of("mean", "last"),
        "temperature": number(1e-3, 1e6),
        "threshold": _NUMBER,
        "texts": sequence(text(400, least=1), _TEXTS_LIMIT),
    }
)


@dataclass(frozen=True, eq=False)
class RouteStatistics:
    """What states look like in general, and the constants of the choice.

    Attributes:
        layer, pooling, temperature, threshold: As in `RouteSettings`.
        mean: Float [D], subtracted from every state.
        whitening: Float [r, D]: after it, states of one kind of request vary by one in every direction.
        none: Float [m, D]: centroids of what is no request to a skill.
        reference: Float [D], the mean scaled state of `texts` where the statistics were made. By how much a model's
            own mean differs from it, in another precision, its states are moved back.
        texts: Requests to read for that; without any, states are taken as they are.
    """

    layer: int
    pooling: Any
    temperature: float
    threshold: float
    mean: Float32
    whitening: Float32
    none: Float32
    reference: Float32 | None = None
    texts: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """D."""
        return len(self.mean)

    def settings(self, digest: str) -> RouteSettings:
        """The part of them that lime.json holds.

        Args:
            digest: SHA-256 of their file.
        """
        return RouteSettings(self.layer, self.pooling, self.temperature, self.threshold, digest)

    def to_bytes(self) -> bytes:
        """The file; equal statistics give equal bytes."""
        meta = {
            "format": 1,
            "layer": self.layer,
            "pooling": self.pooling,
            "temperature": self.temperature,
            "threshold": self.threshold,
            "texts": list(self.texts),
        }
        arrays = {"mean": self.mean[None], "whitening": self.whitening, "none": self.none}
        arrays["reference"] = (self.mean if self.reference is None else self.reference)[None]
        tensors = {name: array.astype(np.float16) for name, array in arrays.items()}
        return pack({_KEY: canonical_json(meta).decode()}, tensors)


def radius(whitening: npt.NDArray[np.floating[Any]]) -> float:
    """Of the sphere that whitened states [r] are put on: the length that they have on average."""
    return float(np.sqrt(len(whitening)))


def write_statistics(path: Path, statistics: RouteStatistics) -> RouteStatistics:
    """Write the file atomically; returns what a reader gets.

    Raises:
        ModelError: They are not valid; nothing is written.
        OSError: The file cannot be written.
    """
    data = statistics.to_bytes()
    found = _decoded(data, path)
    write_file(path, data)
    return found


def read_statistics(path: Path) -> tuple[RouteStatistics, str]:
    """Read and validate an untrusted file.

    Returns:
        The statistics, and the SHA-256 (hex) of the file.

    Raises:
        ModelError: Names every fault.
    """
    try:
        data = read_bounded(path, _FILE_LIMIT)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path} cannot be read: {reason(error)}; expected the statistics of states that a checkpoint comes with"
        ) from error
    return _decoded(data, path), sha256(data).hexdigest()


def _decoded(data: bytes, path: Path) -> RouteStatistics:
    try:
        container = unpack(data)
        meta = load_json(container.metadata.get(_KEY, ""))
    except ValueError as error:
        raise ModelError(f"{path} holds no statistics of states", [str(error)]) from error
    faults = [*container.faults, *_META("the metadata", meta)]
    tensors = {name: array.astype(np.float32) for name, array in container.tensors.items()}
    faults = faults or list(_tensor_faults(tensors))
    if faults:
        raise ModelError(f"{path} cannot be used: make the statistics of the checkpoint again", bounded(faults))
    return RouteStatistics(
        meta["layer"],
        meta["pooling"],
        float(meta["temperature"]),
        float(meta["threshold"]),
        tensors["mean"][0],
        tensors["whitening"],
        tensors["none"],
        tensors["reference"][0],
        tuple(meta["texts"]),
    )


def _tensor_faults(tensors: Mapping[str, Float32]) -> Iterator[str]:
    if set(tensors) != {"mean", "whitening", "none", "reference"}:
        yield f"the tensors are {show(sorted(tensors))}; expected mean, none, reference and whitening"
        return
    width = tensors["mean"].shape[1]
    for name, most in (("mean", 1), ("reference", 1), ("whitening", _RANK_LIMIT), ("none", NONE_LIMIT)):
        rows, columns = tensors[name].shape
        if rows > most or columns != width or width > WIDTH_LIMIT:
            yield f"{name} is [{rows}, {columns}]; expected at most [{most}, {WIDTH_LIMIT}], as wide as the mean"
        if not np.isfinite(tensors[name]).all():
            yield f"{name} contains numbers that are not finite"
