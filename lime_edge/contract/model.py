"""`ModelContract`: the content of lime.json, which a skill and the runtime are checked against.

It identifies backbone and shared adapter by digest, and gives the routing constants and the module table of an exported
model directory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lime_edge.common.digests import json_digest
from lime_edge.errors import ModelError

from .module_table import Module, ModuleTable
from .names import MODEL_JSON, VISION_JSON
from .route_settings import RouteSettings
from .routing import Routing
from .vector_kinds import GAIN, KINDS, PREFIX

MODEL_FORMAT = 1
OPSET = 1  # version of the operator domain ai.lime


@dataclass(frozen=True)
class ModelContract:
    """The content of ``lime.json`` in an exported model directory."""

    backbone_name: str
    backbone_revision: str
    backbone_digest: str
    adapter_digest: str
    precision: str
    routing: Routing
    table: ModuleTable
    files: tuple[tuple[str, str], ...]  # (file name, SHA-256) of the graph and its weights
    sizes: tuple[tuple[str, int], ...] = ()  # (file name, bytes) of the same files; early versions did not write it
    parts: tuple[tuple[str, int], ...] = ()  # (part, bytes) of the weights, largest first; for people only
    route: RouteSettings | None = None  # how a skill is chosen by the request; None: it cannot be

    @property
    def graph_digest(self) -> str:
        return json_digest(sorted(self.files))

    @property
    def sees(self) -> bool:
        """Whether the model takes pictures: it has a vision.json."""
        return VISION_JSON in dict(self.files)

    def to_json(self) -> str:
        table = self.table
        graph: dict[str, Any] = {"digest": self.graph_digest, "opset": OPSET, "files": dict(self.files)}
        graph |= {key: dict(value) for key, value in (("sizes", self.sizes), ("parts", self.parts)) if value}
        document = {
            "format": MODEL_FORMAT,
            "backbone": {
                "name": self.backbone_name,
                "revision": self.backbone_revision,
                "digest": self.backbone_digest,
            },
            "adapter": {"digest": self.adapter_digest},
            "graph": graph,
            "precision": self.precision,
            "routing": self.routing.to_dict(),
            "kinds": list(table.kinds),
            "row_size": table.row_size,
            "modules_digest": table.digest,
            "modules": [
                {
                    "name": m.name,
                    "out_features": m.out_features,
                    "rank": m.rank,
                    "offsets": {kind: table.offsets[kind, m.name] for kind in table.kinds_of(m.name)},
                }
                for m in table.modules
            ],
        }
        if self.route is not None:
            document["route"] = self.route.to_dict()
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ModelContract:
        """Parse and validate lime.json.

        Raises:
            ModelError: Not JSON, another format version, or keys that contradict each other.
        """
        try:
            document = json.loads(text)
            if document.get("format") != MODEL_FORMAT:
                version = document.get("format")
                raise ModelError(f"lime.json has format {version!r}; this version reads {MODEL_FORMAT}: export again")
            routing = Routing.from_dict(document["routing"])
            table = ModuleTable(
                modules=tuple(
                    Module(str(m["name"]), _count(m["out_features"]), _count(m["rank"])) for m in document["modules"]
                ),
                experts=routing.experts,
                kinds=tuple(document["kinds"]),
                gain_only=_gain_only(document),
            )
            contract = cls(
                backbone_name=str(document["backbone"]["name"]),
                backbone_revision=str(document["backbone"]["revision"]),
                backbone_digest=str(document["backbone"]["digest"]),
                adapter_digest=str(document["adapter"]["digest"]),
                precision=str(document["precision"]),
                routing=routing,
                table=table,
                files=tuple(sorted((str(k), str(v)) for k, v in document["graph"]["files"].items())),
                sizes=tuple(sorted(_byte_counts(document["graph"], "sizes"))),
                parts=_byte_counts(document["graph"], "parts"),
                route=RouteSettings.from_dict(document["route"]) if "route" in document else None,
            )
            faults = [*_contradictions(document, contract)]
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(f"lime.json cannot be read: {type(error).__name__}: {error}; export again") from error
        if faults:
            raise ModelError("lime.json contradicts itself: export again", faults)
        return contract


def read_contract(directory: Path) -> ModelContract:
    """Read lime.json from a model directory, without the other files.

    Raises:
        ModelError: lime.json is missing, unreadable or contradicts itself.
    """
    try:
        return ModelContract.from_json((directory / MODEL_JSON).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{directory / MODEL_JSON} cannot be read; expected the file that `lime-edge export` writes"
        ) from error


def _contradictions(document: Mapping[str, Any], contract: ModelContract) -> Iterator[str]:
    """Redundant values of lime.json that differ, and impossible module tables."""
    table, graph = contract.table, document["graph"]
    if table.kinds != PREFIX and (not table.kinds or table.kinds != tuple(k for k in KINDS if k in table.kinds)):
        yield f"kinds are {list(table.kinds)}; expected {list(PREFIX)}, or some of {list(KINDS)}, in that order"
        return  # without valid kinds a row has no layout
    if table.kinds == PREFIX and (len(table.modules), table.experts) != (1, 1):
        yield f"a soft prefix has one module and one expert, not {len(table.modules)} and {table.experts}"
    if len({module.name for module in table.modules}) < max(1, len(table.modules)):
        yield "the module table is empty or names a module twice"
    if graph["opset"] != OPSET:
        yield f"operator set {graph['opset']!r}; this version supports {OPSET}"
    if table.gain_only and "gain" not in table.kinds:
        yield "some modules have only a gain, but kinds does not contain gain"
    offsets = [
        {kind: table.offsets[kind, module.name] for kind in table.kinds_of(module.name)} for module in table.modules
    ]
    if offsets != [module["offsets"] for module in document["modules"]] or document["row_size"] != table.row_size:
        yield "the offsets do not follow from the module table"
    if document["modules_digest"] != table.digest:
        yield "the digest of the module table does not match its content"
    if graph["digest"] != contract.graph_digest:
        yield "the digest of the graph does not match its files"
    if unknown := [name for name, _ in contract.sizes if name not in dict(contract.files)]:
        yield f"sizes names {', '.join(unknown)}; expected some of {', '.join(dict(contract.files))}"


def _gain_only(document: Mapping[str, Any]) -> frozenset[str]:
    """Names of the modules for which lime.json has only a gain, in a model with more kinds."""
    if document["kinds"] == list(GAIN):
        return frozenset()
    return frozenset(str(m["name"]) for m in document["modules"] if [*m["offsets"]] == list(GAIN))


def _byte_counts(graph: Mapping[str, Any], key: str) -> tuple[tuple[str, int], ...]:
    """(name, bytes) of an optional object of lime.json."""
    pairs = tuple((str(name), value) for name, value in graph.get(key, {}).items())
    for name, value in pairs:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
            raise ValueError(f"{key} of {name} is {value!r}; expected a number of bytes")
    return pairs


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**24:
        raise ValueError(f"{value!r} is not a size")
    return value
