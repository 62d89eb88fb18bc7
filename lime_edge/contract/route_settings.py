"""How a model chooses a skill by the request: the state that is compared, and the constants of the comparison.

Stored in lime.json as ``route``. The method: docs/routing.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from lime_edge.common.strict_json import number, one_of, record, text, whole
from lime_edge.errors import ConfigError

Pooling = Literal["mean", "last"]

LAYER_LIMIT = 1000

_NUMBER = number(-1e6, 1e6)
_RULES = record(
    {
        "layer": whole(0, LAYER_LIMIT),
        "pooling": one_of(*get_args(Pooling)),
        "temperature": number(1e-3, 1e6),
        "threshold": _NUMBER,
        "statistics": text(64, least=64, pattern="[0-9a-f]{64}", what="a SHA-256 in lower-case hex"),
    }
)


@dataclass(frozen=True)
class RouteSettings:
    """The constants of the choice.

    Attributes:
        layer: The layer whose output is compared; 0 means the embeddings.
        pooling: Over the tokens of a request: their mean, or the last one.
        temperature: T of the mixtures: a point at the squared distance d counts exp(-d / 2T).
        threshold: Added to the log-likelihood of "none"; the higher, the more requests go to the base.
        statistics: SHA-256 of the file of the same directory that holds the statistics of states.
    """

    layer: int
    pooling: Pooling
    temperature: float
    threshold: float
    statistics: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> RouteSettings:
        """Check and build.

        Raises:
            ConfigError: Names every key that is missing, unknown or out of range.
        """
        if faults := list(_RULES("route", document)):
            raise ConfigError("the settings of the route cannot be used", faults)
        return cls(**document)
