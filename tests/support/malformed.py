"""Packages that must be refused: a table of what is wrong and of the words that say so.

Everything starts from one sound package (`sound`); each case breaks one thing and leaves the rest sound,
digest included, so that exactly its own faults are reported.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lime_edge.common.digests import canonical_json
from lime_edge.contract.model import ModelContract
from lime_edge.contract.module_table import Module, ModuleTable
from lime_edge.contract.routing import Routing
from lime_edge.contract.vector_kinds import Kind
from lime_edge.skills.manifest import Manifest
from lime_edge.skills.package import Skill, digest_of
from lime_edge.skills.safetensors_file import pack, unpack
from lime_edge.skills.vector_codec import decode_vectors, encode_vectors

Array = npt.NDArray[Any]
Document = dict[str, Any]
Tensors = dict[str, Array]
Edit = Callable[[Document, Tensors], object]

EXPERTS, WIDTH, RANK = 2, 40, 3  # 40: the last block of 32 is not full
MODULES = ("layers.0.q_proj", "layers.1.q_proj")
TABLE = ModuleTable(tuple(Module(name, WIDTH, RANK) for name in MODULES), EXPERTS, ("expert", "gain", "shift", "rank"))
BACKBONE, ADAPTER = "b" * 64, "a" * 64
CONTRACT = ModelContract("tiny", "main", BACKBONE, ADAPTER, "fp32", Routing(experts=EXPERTS), TABLE, ())
Q = "expert.layers.0.q_proj"


def manifest(**changes: Any) -> Manifest:
    """A manifest with something in every key."""
    whole: dict[str, Any] = {
        "name": "tiny",
        "version": "1.0.0",
        "description": "A package for tests.\nTwo lines, and an umlaut: ä.",
        "license": "Apache-2.0",
        "author": "lime-edge",
        "created": "2026-01-31",
        "backbone": BACKBONE,
        "backbone_name": "tiny",
        "adapter": ADAPTER,
        "modules": TABLE.digest,
        "routing": Routing(experts=EXPERTS),
        "prompt": {"system": "Be brief.", "generation": {"temperature": 0, "max_new_tokens": 8}, "stop": ["\n\n"]},
        "golden": [
            {
                "prompt_ids": [1, 2],
                "answer_ids": [3],
                "top_ids": [3, 4],
                "skill_logits": [2.5, 1],
                "base_logits": [1, 2],
            }
        ],
        "metrics": [
            {
                "dataset": "d" * 64,
                "name": "accuracy",
                "split": "test",
                "rows": 64,
                "skill": 0.75,
                "base": 0.5,
                "lora": 0.75,
                "date": "2026-01-31",
            }
        ],
        "centroid": [0.5, -0.25],
    }
    return Manifest(**whole | changes)


def vectors(kinds: tuple[Kind, ...] = ("expert", "gain", "shift"), experts: int = EXPERTS) -> dict[str, Array]:
    """Plain arithmetic, no random generator: the same on every platform and numpy."""
    made: dict[str, Array] = {}
    for k, kind in enumerate(kinds):
        for m, module in enumerate(MODULES):
            width = RANK if kind == "rank" else WIDTH
            count = np.arange(experts * width, dtype=np.float32).reshape(experts, width)
            made[f"{kind}.{module}"] = ((count * 7 + 5 * k + 3 * m) % 64 - 32) / 32
    return made


def package(edit: Edit = lambda document, tensors: None, *, dtype: str = "i8", seal: bool = True) -> bytes:
    """A sound package after an edit of its manifest and stored tensors; with `seal` its digest is made again."""
    stored = encode_vectors(vectors(), dtype)
    bounds = {kind: float(np.ceil(peak)) for kind, peak in decode_vectors(stored).peaks.items()}
    document = manifest().sealed(bounds, "").to_dict()
    document["digest"] = digest_of(document, stored)
    edit(document, stored)
    if seal:
        document["digest"] = digest_of(document, stored)
    return pack({"lime": canonical_json(document).decode()}, stored)


def sound() -> bytes:
    return package()


def with_header(edit: Callable[[Document], object]) -> bytes:
    """The sound package with its header edited and its data left alone."""
    data = sound()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    edit(header)
    return framed(json.dumps(header).encode(), data[8 + size :])


def with_manifest(edit: Callable[[str], str]) -> bytes:
    """The sound package with the text of its manifest edited."""
    box = unpack(sound())
    return pack({"lime": edit(box.metadata["lime"])}, box.tensors)


def framed(header: bytes, body: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + body


@dataclass(frozen=True)
class Case:
    """Bytes to refuse, and a part of each fault that must be reported; no others may be."""

    name: str
    make: Callable[[], bytes]
    faults: tuple[str, ...]


def said(name: str, /, *faults: str, **values: Any) -> Case:
    """A case that sets keys of the manifest; ``a__b`` is key b of a."""

    def edit(document: Document, _: Tensors) -> None:
        for path, value in values.items():
            *parents, last = path.split("__")
            target: Any = document
            for parent in parents:
                target = target[int(parent) if parent.isdigit() else parent]
            target[last] = value

    return Case(name, lambda: package(edit), faults)


def stored(name: str, edit: Callable[[Tensors], object], *faults: str, dtype: str = "i8") -> Case:
    """A case that edits the stored tensors."""
    return Case(name, lambda: package(lambda _, tensors: edit(tensors), dtype=dtype), faults)


def header(name: str, edit: Callable[[Document], object], *faults: str) -> Case:
    return Case(name, lambda: with_header(edit), faults)


def _poke(tensors: Tensors, name: str, value: float) -> None:
    tensors[name] = tensors[name].copy()
    tensors[name].flat[0] = value


def _move(tensors: Tensors, old: str, new: str) -> None:
    tensors[new] = tensors.pop(old)


def _flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _overlap(found: Document) -> None:
    entry = found[Q]
    entry["data_offsets"] = [offset - 1 for offset in entry["data_offsets"]]


CONTAINER = [
    Case("empty", lambda: b"", ("0 bytes with a header of 0",)),
    Case("seven bytes", lambda: b"1234567", ("7 bytes with a header of",)),
    Case("zip", lambda: b"PK\x03\x04" + b"\0" * 60, ("inside the file, at most 8388608",)),
    Case("huge header", lambda: b"\xff" * 8 + b"{}", ("header of 18446744073709551615",)),
    Case("header over the limit", lambda: framed(b" " * (2**23 + 1)), ("header of 8388609",)),
    Case("no JSON", lambda: framed(b"hello world"), ("the header is not strict JSON",)),
    Case("not UTF-8", lambda: framed(b'{"\xff": 1}'), ("the header is not strict JSON: 'utf-8'",)),
    Case("list header", lambda: framed(b"[]"), ("the header is []; expected an object",)),
    Case("deep header", lambda: framed(b"[" * 60_000), ("nested too deeply",)),
    Case("key twice", lambda: framed(b'{"a": 1, "a": 2}'), ("key 'a' appears twice",)),
    Case("NaN in the header", lambda: framed(b'{"a": NaN}'), ("NaN is not a JSON number",)),
    Case("empty header", lambda: framed(b"{}"), ("not a skill package", "contains no vectors")),
    Case(
        "too many tensors",
        lambda: with_header(lambda h: h.update({f"t{i}": 0 for i in range(2**14)})),
        ("contains 16396 tensors; expected at most 16384",),
    ),
    Case("trailing bytes", lambda: sound() + b"\0", ("1 bytes follow the last tensor",)),
    Case("cut short", lambda: sound()[:-5], ("the file is cut short",)),
    Case("damaged value", lambda: _flip(sound()), ("the file was changed or damaged",)),
    header("text for metadata", lambda h: h.update(__metadata__="x"), "not a skill package", "__metadata__ is 'x'"),
    header("other metadata", lambda h: h["__metadata__"].update(format="pt"), "unknown key 'format'"),
    header(
        "number as manifest", lambda h: h.update(__metadata__={"lime": 1}), "has no key", "expected an object of te"
    ),
    header("no lime", lambda h: h.update(__metadata__={"format": "pt"}), "no key 'lime'", "unknown key 'format'"),
    header("entry is a list", lambda h: h.update({Q: []}), f"tensor '{Q}': []; expected an object with dtype"),
    header("entry with a key more", lambda h: h[Q].update(device="cpu"), "expected an object with dtype"),
    header("F32", lambda h: h[Q].update(dtype="F32"), f"tensor '{Q}': dtype 'F32'; expected F16 or I8"),
    header("pickle as dtype", lambda h: h[Q].update(dtype=["O"]), "dtype ['O']; expected F16 or I8"),
    header("three sides", lambda h: h[Q].update(shape=[2, 20, 2]), "shape [2, 20, 2]; expected [rows, columns]"),
    header("side of zero", lambda h: h[Q].update(shape=[0, 40]), "shape [0, 40]; expected"),
    header("negative side", lambda h: h[Q].update(shape=[-2, -40]), "shape [-2, -40]; expected"),
    header("huge side", lambda h: h[Q].update(shape=[2, 2**60]), "each from 1 to 16777216"),
    header("side of 2.0", lambda h: h[Q].update(shape=[2.0, 40]), "shape [2.0, 40]; expected"),
    header("true as a side", lambda h: h[Q].update(shape=[True, 80]), "shape [True, 80]; expected"),
    header("shape does not fill", lambda h: h[Q].update(shape=[2, 39]), "hold 80 bytes; I8 [2, 39] takes 78"),
    header("offsets backwards", lambda h: h[Q].update(data_offsets=[200, 120]), "hold -80 bytes"),
    header("offsets of text", lambda h: h[Q].update(data_offsets="01"), "data_offsets '01'; expected [begin, end]"),
    header("overlap", _overlap, "overlaps the tensor before it", "leaves a gap before it"),
    header("entry dropped", lambda h: h.pop(Q), "leaves a gap before it"),
]

MANIFEST = [
    Case("manifest is no JSON", lambda: with_manifest(lambda t: t[:-1]), ("the manifest is not strict JSON",)),
    Case("manifest is a list", lambda: with_manifest(lambda t: "[]"), ("manifest is []; expected an object",)),
    Case("manifest is deep", lambda: with_manifest(lambda t: '{"a":' * 9999), ("nested too deeply",)),
    Case("manifest too long", lambda: with_manifest(lambda t: " " * (2**22 + 1)), ("over 4194304",)),
    Case("manifest has spaces", lambda: with_manifest(lambda t: t.replace(":", ": ")), ("not in canonical form",)),
    Case("huge number", lambda: with_manifest(lambda t: t.replace("0.7,", "1e999,")), ("gamma is inf",)),
    Case("five thousand digits", lambda: with_manifest(lambda t: '{"a":' + "9" * 5000 + "}"), ("not strict JSON",)),
    said("format 2", "format version 2; this lime-edge reads version 1: update lime-edge", format=2),
    said("format 1.0", "manifest.format is 1.0", format=1.0),
    said("unknown key", "manifest has the unknown key 'weights'", weights=1),
    said("control character in a key", r"unknown key '\x1b[2J'", **{"\x1b[2J": 1}),
    Case("key missing", lambda: package(lambda d, _: d.pop("license")), ("manifest lacks the key 'license'",)),
    said("name with a slash", "manifest.name is '../tiny'; expected a name", name="../tiny"),
    said("name with a newline", r"manifest.name is 'tiny\n'", name="tiny\n"),
    said("capital name", "manifest.name is 'Tiny'", name="Tiny"),
    said("long name", "expected a name of 1 to 64 characters", name="a" * 65),
    said("version", "manifest.version is '1.0'; expected a semantic version", version="1.0"),
    said("version with a leading zero", "manifest.version is '01.0.0'", version="01.0.0"),
    said("version in Arabic digits", "manifest.version is '1.0.٢'", version="1.0.٢"),
    said("licence", "expected an SPDX licence", license="mine!"),
    said("created", "manifest.created is '2026-02-30'; expected a date", created="2026-02-30"),
    said("created in wide digits", "expected a date, YYYY-MM-DD", created="٢٠٢٦-01-31"),
    said("created as a number", "manifest.created is 2026", created=2026),
    said("author with a bell", r"manifest.author contains ['\x07']", author="a\x07"),
    said("description too long", "manifest.description is", description="a" * 4001),
    said("backbone digest", "manifest.backbone is 'BBB", backbone="B" * 64),
    said("experts differ", "experts is 3 but routing.experts is 2", experts=3),
    said("experts zero", "manifest.experts is 0", "but routing.experts is 2", experts=0),
    said("routing with a wrong mode", "manifest.routing: mode is 'best'; expected one of", routing__mode="best"),
    said("routing with a key more", "manifest.routing: unknown key 'noise'", routing__noise=0.1),
    said("routing with a list", "manifest.routing is {", routing__mode=[]),
    said("routing is null", "manifest.routing is None", routing=None),
    said("activation", "manifest.activation is 'never'; expected one of always, response", activation="never"),
    said("prompt key", "manifest.prompt has the unknown key 'template'", prompt__template="x"),
    said("generation", "manifest.prompt.generation.temperature is -1", prompt__generation={"temperature": -1}),
    said("generation key", "generation has the unknown key 'seed'", prompt__generation={"seed": 1}),
    said("stop", "manifest.prompt.stop[0] is ''; expected text of 1 to 200", prompt__stop=[""]),
    said("bounds of a kind unknown", "manifest.bounds has the unknown key 'bias'", bounds__bias=1),
    said("bounds of a kind absent", "but the tensors are ['expert', 'gain', 'shift']", bounds__rank=1),
    said("negative bound", "manifest.bounds.expert is -1", bounds__expert=-1),
    said("true as a bound", "manifest.bounds.expert is True; expected a number", bounds__expert=True),
    said("bound too low", "expert reaches 1.00091; manifest.bounds.expert promises at most 0.5", bounds__expert=0.5),
    said("golden lengths", "lists of [2, 1, 2] for top_ids, skill_logits", golden__0__skill_logits=[1]),
    said("golden id", "golden[0].prompt_ids[0] is -1", golden__0__prompt_ids=[-1]),
    said("golden ids too many", "is a list of 4097; expected a list of 1 to 4096", golden__0__prompt_ids=[1] * 4097),
    said("golden too many", "manifest.golden is a list of 17", golden=manifest().golden * 17),
    said("golden is text", "manifest.golden[0] is 'x'; expected an object", golden=["x"]),
    said("metric", "manifest.metrics[0].rows is 1.5", metrics__0__rows=1.5),
    said("centroid", "manifest.centroid[0] is 'x'", centroid=["x"]),
    said("two faults", "manifest.name is ''", "manifest.version is ''", name="", version=""),
    Case(
        "digest of another", lambda: package(lambda d, _: d.update(name="other"), seal=False), ("changed or damaged",)
    ),
    Case(
        "surrogate in text",
        lambda: with_header(
            lambda h: h.update(__metadata__={"lime": h["__metadata__"]["lime"].replace("brief", "\ud800")})
        ),
        (r"manifest.prompt.system contains ['\ud800']",),
    ),
]

TENSORS = [
    stored(
        "kind unknown",
        lambda t: _move(t, Q, "bias.m"),
        "'bias.m': expected a name",
        "has no vector",
        "but the tensors are ['bias', ",
    ),
    stored("no module", lambda t: t.update({"expert.": t[Q]}), "tensor 'expert.': expected a name"),
    stored("module with a space", lambda t: t.update({"expert.a b": t[Q]}), "tensor 'expert.a b': expected a name"),
    header(
        "surrogate in a name", lambda h: h.update({"expert.\ud800": h.pop(Q)}), r"'expert.\ud800'", "has no vector"
    ),
    stored("scale missing", lambda t: t.pop(Q + ".scale"), f"tensor {Q}.scale is missing"),
    stored("scale alone", lambda t: t.pop(Q), f"tensor {Q}.scale has no vector"),
    stored("scale not wanted", lambda t: t.update({Q + ".scale": abs(t[Q])}), "is not allowed", dtype="f16"),
    stored("scale too narrow", lambda t: t.update({Q + ".scale": t[Q + ".scale"][:, :1]}), "expected float16 [2, 2]"),
    stored("scale of int8", lambda t: t.update({Q + ".scale": t[Q][:, :2]}), "is int8 [2, 2]; expected float16 [2, 2]"),
    stored("both types", lambda t: t.update({"gain.m": t[Q + ".scale"]}), "some vectors are F16 and some I8"),
    stored("one row", lambda t: t.update({Q: t[Q][:1]}), "has 1 rows; expected E = 2", "is float16 [2, 2]; expected"),
    stored("widths differ", lambda t: t.update({Q: t[Q][:, :39]}), "module layers.0.q_proj has widths {'expert': 39"),
    stored("infinite scale", lambda t: _poke(t, Q + ".scale", np.inf), f"tensor {Q}.scale contains numbers that are not"),
    stored("NaN", lambda t: _poke(t, Q, np.nan), f"tensor {Q} contains numbers that are not finite", dtype="f16"),
    stored("negative scale", lambda t: _poke(t, Q + ".scale", -1), "contains negative scales"),
    stored("-128", lambda t: _poke(t, Q, -128), f"tensor {Q} contains -128"),
    stored("over the bounds", lambda t: _poke(t, Q + ".scale", 100), "promises at most"),
]

MALFORMED = CONTAINER + MANIFEST + TENSORS


@dataclass(frozen=True)
class Mismatch:
    """A sound skill, a model that it does not fit, and a part of each fault; no others may be reported."""

    name: str
    faults: tuple[str, ...]
    skill: Callable[[Skill], Skill] = lambda skill: skill
    model: ModelContract = CONTRACT
    limit: dict[Kind, float] | None = None


def _table(*modules: Module, kinds: tuple[Kind, ...] = TABLE.kinds) -> ModelContract:
    """The same module-table digest is no concern here: digests have cases of their own."""
    return replace(CONTRACT, table=ModuleTable(modules or TABLE.modules, EXPERTS, kinds))


def _routing(**changes: Any) -> ModelContract:
    return replace(CONTRACT, routing=replace(CONTRACT.routing, **changes))


def _with_rank(skill: Skill) -> Skill:
    extra = decode_vectors(encode_vectors(vectors(("rank",)), "i8")).values
    bounds = skill.manifest.bounds | {"rank": 1.0}
    return replace(skill, manifest=replace(skill.manifest, bounds=bounds), tensors={**skill.tensors, **extra})


_Q0, _Q1 = TABLE.modules
_DIGEST = "made for module table"

MISMATCHED = [
    Mismatch(
        "backbone",
        ("made for backbone (tiny) bbbbbbbbbbbb, the model has cccccccccccc",),
        model=replace(CONTRACT, backbone_digest="c" * 64),
    ),
    Mismatch("adapter", ("made for shared adapter aaaaaaaaaaaa",), model=replace(CONTRACT, adapter_digest="c" * 64)),
    Mismatch("gamma", ("learned with routing gamma = 0.7, the model has 0.5",), model=_routing(gamma=0.5)),
    Mismatch(
        "window and mode",
        ("routing mode = auto", "routing window = 1, the model has 3"),
        model=_routing(mode="hard", window=3),
    ),
    Mismatch(
        "module renamed",
        (
            _DIGEST,
            *[f"contains {k}.layers.1.q_proj, which" for k in ("expert", "gain", "shift")],
        ),
        model=_table(_Q0, replace(_Q1, name="layers.9.q_proj")),
    ),
    Mismatch(
        "a module too many",
        (_DIGEST, *[f"contains {k}.layers.1.q_proj, which" for k in ("expert", "gain", "shift")]),
        model=_table(_Q0),
    ),
    Mismatch(
        "module wider",
        (_DIGEST, *[f"{k}.layers.1.q_proj is [2, 40], the model expects [2, 48]" for k in ("expert", "gain", "shift")]),
        model=_table(_Q0, replace(_Q1, out_features=48)),
    ),
    Mismatch(
        "rank differs",
        (_DIGEST, "rank.layers.1.q_proj is [2, 3], the model expects [2, 5]"),
        skill=_with_rank,
        model=_table(_Q0, replace(_Q1, rank=5)),
    ),
    Mismatch(
        "no rank gate",
        ("contains rank vectors, the graph has only expert, gain, shift: export with --rank-gate",),
        skill=_with_rank,
        model=_table(kinds=("expert", "gain", "shift")),
    ),
    Mismatch(
        "no shift", ("contains shift vectors, the graph has only expert, gain",), model=_table(kinds=("expert", "gain"))
    ),
    Mismatch(
        "the gain alone",
        tuple(f"contains {kind}.layers.1.q_proj, where the model accepts only the gain" for kind in ("expert", "shift")),
        model=replace(CONTRACT, table=replace(TABLE, gain_only=frozenset({"layers.1.q_proj"}))),
    ),
    Mismatch("limit", ("declares gain up to 1.001, this runtime accepts at most 0.5",), limit={"gain": 0.5}),
    Mismatch("two limits", ("declares expert up to 1", "declares shift up to 1"), limit={"expert": 0, "shift": 0.25}),
]
