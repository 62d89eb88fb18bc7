"""The contract between checkpoint, skill, exported graph and runtime: plain data and digests.

What a skill's vectors are called, how long they are, where each lies in a row of the bank, and what
the routing constants may be. Knows nothing of torch, ONNX or files. Maths: LiME (arXiv 2604.02338).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from .errors import ConfigError, ModelError

Kind = Literal["expert", "gain", "shift", "rank", "prefix"]
Mode = Literal["hard", "soft", "auto", "auto_soft"]

KINDS: tuple[Kind, ...] = ("expert", "gain", "shift", "rank")  # that modulate a module
GAIN: tuple[Kind, ...] = ("gain",)  # all that some modules have
PREFIX: tuple[Kind, ...] = ("prefix",)  # what a model of prompt tuning takes instead
STORED: tuple[Kind, ...] = KINDS + PREFIX  # that a package may hold
MODES: tuple[Mode, ...] = get_args(Mode)
MODEL_FORMAT = 1
OPSET = 1  # version of the operator domain "ai.lime"
ALIGNMENT = 64  # floats; every module's block of a bank row starts and ends on it

#: A value that leaves the frozen output alone, per kind: what a skill without that kind means.
NEUTRAL: dict[Kind, float] = {"expert": 0.0, "gain": 0.0, "shift": 0.0, "rank": 1.0, "prefix": 0.0}


@dataclass(frozen=True)
class Routing:
    """Constants of the zero-parameter router (LiME sections on routing, Auto Top-K and n-grams)."""

    experts: int = 4  # E, 1..64
    gamma: float = 0.7  # share of the adapter's output in the evidence, 0..1
    temperature: float = 0.5  # T of the softmax, > 0
    mode: Mode = "auto"  # how experts are selected
    top_k: int = 2  # k of hard and soft; "auto" keeps at most min(2k, E)
    theta: float = 0.5  # Auto Top-K keeps prob >= theta * max(prob), 0..1
    softness: float = 0.5  # t of the sigmoid in the soft modes, > 0
    window: int = 1  # n of the causal n-gram, 1..16

    def __post_init__(self) -> None:
        whole = {"experts": (1, 64), "top_k": (1, 64), "window": (1, 16)}
        real = {"gamma": (0, 1), "theta": (0, 1), "temperature": (1e-3, 1e3), "softness": (1e-3, 1e3)}
        faults = []
        for name, (low, high) in (whole | real).items():
            value = getattr(self, name)
            kind = int if name in whole else (int, float)
            if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
                what = "a whole number" if name in whole else "a number"
                faults.append(f"{name} is {value!r}; expected {what} from {low} to {high}")
        if self.mode not in MODES:
            faults.append(f"mode is {self.mode!r}; expected one of {', '.join(MODES)}")
        if faults:
            raise ConfigError("the routing constants cannot be used", faults)

    @property
    def keep(self) -> int:
        """How many experts a hard selection can keep at most: k, or min(2k, E) for Auto Top-K."""
        return min(2 * self.top_k if self.mode == "auto" else self.top_k, self.experts)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Routing:
        """Raises ConfigError that names every unknown, missing or wrong key."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"the routing constants are {type(values).__name__}; expected an object")
        known = {f.name for f in fields(cls)}
        faults = [f"unknown key {key!r}" for key in sorted(set(values) - known, key=str)]
        faults += [f"missing key {key!r}" for key in sorted(known - set(values))]
        if faults:
            raise ConfigError("the routing constants cannot be used", faults)
        return cls(**values)


@dataclass(frozen=True)
class Module:
    """One adapted module: its name in the backbone, H and r; of prompt tuning r is the number of virtual tokens."""

    name: str
    out_features: int
    rank: int

    def shape(self, kind: Kind, experts: int) -> tuple[int, int]:
        """Shape of one vector kind: [E, r] for the rank gate, [E, r * H] for a soft prefix, else [E, H]."""
        widths = {"rank": self.rank, "prefix": self.rank * self.out_features}
        return (experts, widths.get(kind, self.out_features))


@dataclass(frozen=True)
class ModuleTable:
    """The adapted modules in graph order, and where each vector lies in a flat bank row.

    A row is E segments, one for each expert. In a segment a module's block is ``expert, gain, shift,
    rank`` (those of `kinds_of`), each of its width, padded to a multiple of `ALIGNMENT`; blocks follow
    each other in table order. A skill of one expert uses the first segment alone.
    """

    modules: tuple[Module, ...]
    experts: int
    kinds: tuple[Kind, ...] = ("expert", "gain", "shift")
    gain_only: frozenset[str] = frozenset()  # names of modules that have no other kind

    def kinds_of(self, name: str) -> tuple[Kind, ...]:
        """The kinds that a row holds of this module, in order."""
        return GAIN if name in self.gain_only else self.kinds

    @cached_property
    def offsets(self) -> dict[tuple[Kind, str], int]:
        """Offset in a segment, in numbers, of every (kind, module name)."""
        return self._layout[0]

    @cached_property
    def segment(self) -> int:
        """Numbers of one expert."""
        return self._layout[1]

    @property
    def virtual_tokens(self) -> int:
        """How many virtual tokens stand before the prompt of a row that has a skill."""
        return self.modules[0].rank if self.kinds == PREFIX else 0

    @cached_property
    def row_size(self) -> int:
        """P, numbers in one bank row."""
        return self.experts * self.segment

    @cached_property
    def _layout(self) -> tuple[dict[tuple[Kind, str], int], int]:
        offsets: dict[tuple[Kind, str], int] = {}
        position = 0
        for module in self.modules:
            for kind in self.kinds_of(module.name):
                offsets[kind, module.name] = position
                position += module.shape(kind, 1)[1]
            position = math.ceil(position / ALIGNMENT) * ALIGNMENT
        return offsets, position

    def pack(self, tensors: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Lay vectors named ``<kind>.<module>``, each [E, width] or [1, width], into segments, [E or 1, segment].

        A kind that is absent becomes its neutral value. Shapes must have been checked before.
        """
        segments = np.zeros((max((len(t) for t in tensors.values()), default=1), self.segment), np.float32)
        for module in self.modules:
            for kind in self.kinds_of(module.name):
                start = self.offsets[kind, module.name]
                target = segments[:, start : start + module.shape(kind, 1)[1]]
                target[:] = tensors.get(f"{kind}.{module.name}", NEUTRAL[kind])
        return segments

    def bank(
        self, skills: Iterable[Mapping[str, npt.NDArray[np.float32]]], dtype: npt.DTypeLike = np.float32
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """A whole bank [N + 1, P], the base in row 0, and the id that names each row [N + 1].

        An id is the row, below 0 where the skill has several experts.
        """
        packed = [np.zeros((1, 0), np.float32), *(self.pack(skill) for skill in skills)]
        rows = np.zeros((len(packed), self.row_size), dtype)
        for row, segments in zip(rows, packed, strict=True):
            row[: segments.size] = segments.ravel()
        return rows, np.array([-at if len(segments) > 1 else at for at, segments in enumerate(packed)])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of names, H and r in order: what a skill's vectors are shaped by."""
        return json_digest([[m.name, m.out_features, m.rank] for m in self.modules])


@dataclass(frozen=True)
class ModelContract:
    """``lime.json``: what an exported model directory promises."""

    backbone_name: str
    backbone_revision: str
    backbone_digest: str
    adapter_digest: str
    precision: str
    routing: Routing
    table: ModuleTable
    files: tuple[tuple[str, str], ...]  # (file name, SHA-256) of the graph and its weights

    @property
    def graph_digest(self) -> str:
        return json_digest(sorted(self.files))

    def to_json(self) -> str:
        table = self.table
        document = {
            "format": MODEL_FORMAT,
            "backbone": {
                "name": self.backbone_name,
                "revision": self.backbone_revision,
                "digest": self.backbone_digest,
            },
            "adapter": {"digest": self.adapter_digest},
            "graph": {"digest": self.graph_digest, "opset": OPSET, "files": dict(self.files)},
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
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ModelContract:
        """Raises ModelError: not JSON, another format version, or keys that contradict each other."""
        try:
            document = json.loads(text)
            if document.get("format") != MODEL_FORMAT:
                found = document.get("format")
                raise ModelError(f"lime.json has format {found!r}; this version reads {MODEL_FORMAT}: export again")
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
            )
            faults = [*_contradictions(document, contract)]
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(f"lime.json cannot be read: {type(error).__name__}: {error}; export again") from error
        if faults:
            raise ModelError("lime.json contradicts itself: export again", faults)
        return contract


def _contradictions(document: Mapping[str, Any], contract: ModelContract) -> Iterator[str]:
    """What lime.json says twice, and differently; and what no module table can be."""
    table, graph = contract.table, document["graph"]
    if table.kinds != PREFIX and (not table.kinds or table.kinds != tuple(k for k in KINDS if k in table.kinds)):
        yield f"kinds are {list(table.kinds)}; expected {list(PREFIX)}, or some of {list(KINDS)}, in that order"
        return  # nothing can be laid out
    if table.kinds == PREFIX and (len(table.modules), table.experts) != (1, 1):
        yield f"a soft prefix has one module and one expert, not {len(table.modules)} and {table.experts}"
    if len({module.name for module in table.modules}) < max(1, len(table.modules)):
        yield "the module table is empty or names a module twice"
    if graph["opset"] != OPSET:
        yield f"operator set {graph['opset']!r}; this version knows {OPSET}"
    if table.gain_only and "gain" not in table.kinds:
        yield "modules have a gain alone, and kinds have none"
    offsets = [
        {kind: table.offsets[kind, module.name] for kind in table.kinds_of(module.name)} for module in table.modules
    ]
    if offsets != [module["offsets"] for module in document["modules"]] or document["row_size"] != table.row_size:
        yield "the offsets do not follow from the module table"
    if document["modules_digest"] != table.digest:
        yield "the digest of the module table does not match its content"
    if graph["digest"] != contract.graph_digest:
        yield "the digest of the graph does not match its files"


def _gain_only(document: Mapping[str, Any]) -> frozenset[str]:
    """Modules of which lime.json places the gain alone, where others have more."""
    if document["kinds"] == list(GAIN):
        return frozenset()
    return frozenset(str(m["name"]) for m in document["modules"] if [*m["offsets"]] == list(GAIN))


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**24:
        raise ValueError(f"{value!r} is not a size")
    return value


def canonical_json(value: Any) -> bytes:
    """The one byte form of a JSON value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def json_digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def tensor_digest(tensors: Iterable[tuple[str, npt.NDArray[Any]]], head: bytes = b"") -> str:
    """SHA-256 (hex) of `head` and named tensors, whatever order they come in.

    Each tensor contributes its canonical JSON head ``[name, dtype, shape]``, a newline and its
    little-endian C-order bytes, in order of name.
    """
    digest = hashlib.sha256(head)
    for name, array in sorted(tensors, key=lambda item: item[0]):
        text, little = tensor_head(name, array.dtype, array.shape)
        digest.update(text)
        digest.update(np.ascontiguousarray(array, little).ravel().data)
    return digest.hexdigest()


@lru_cache(maxsize=4096)  # the same for every skill of a model
def tensor_head(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[bytes, np.dtype[Any]]:
    """What stands before a tensor's bytes in a digest, and the type whose bytes they are."""
    return canonical_json([name, str(dtype), list(shape)]) + b"\n", dtype.newbyteorder("<")
