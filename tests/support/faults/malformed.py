"""Malformed packages: a table of bytes that must be refused, each with the faults that must be reported.

Every case edits one valid package (`valid_package`). It breaks one rule and keeps the rest valid, including the digest,
so that exactly its own faults are reported.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lime_edge.common.digests import canonical_json
from lime_edge.contract.model import ModelContract
from lime_edge.contract.module_table import Module, ModuleTable
from lime_edge.contract.routing import Routing
from lime_edge.contract.vector_kinds import Kind
from lime_edge.errors import LimeError, SkillFormatError
from lime_edge.skills.draft_table import DraftTable
from lime_edge.skills.interface import AnswerForm, Interface
from lime_edge.skills.manifest import Manifest
from lime_edge.skills.package import digest_of, read_skill
from lime_edge.skills.route import Route
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
    """A manifest with a value in every field."""
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
        "interface": Interface(
            system="Be brief.",
            prefix="Is this spam?\n",
            suffix="\nAnswer:",
            answers=AnswerForm("choices", ["yes", "no", "é"]),
            examples=("Buy now!",),
        ),
        "prompt": {"generation": {"temperature": 0, "max_new_tokens": 8}, "stop": ["\n\n"]},
        "made": {
            "how": "learned",
            "instruction": "kept",
            "data": {"rows": 90, "dropped": 1, "duplicates": 2, "overlap": 0},
        },
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
    }
    return Manifest(**whole | changes)


def old_manifest(**changes: Any) -> Manifest:
    """A manifest of format 1 with a value in every field."""
    old: dict[str, Any] = {"format": 1, "interface": Interface(system="Be brief."), "made": None}
    return manifest(**old | {"centroid": [0.5, -0.25]} | changes)


def draft_table() -> DraftTable:
    """Contexts of one and two tokens, one of them with a probability below 1."""
    table = DraftTable.build([[5, 6, 7, 300], [5, 6, 7, 300], [5, 6, 8], [5, 6, 7]], order=3)
    assert table is not None
    return table


def route() -> Route:
    return Route(1, "mean", np.array([[0.5, -0.25], [1, 0]], np.float32))


def vectors(kinds: tuple[Kind, ...] = ("expert", "gain", "shift"), experts: int = EXPERTS) -> dict[str, Array]:
    """Vectors from plain arithmetic: unlike random numbers, the same on every platform and numpy version."""
    made: dict[str, Array] = {}
    for k, kind in enumerate(kinds):
        for m, module in enumerate(MODULES):
            width = RANK if kind == "rank" else WIDTH
            count = np.arange(experts * width, dtype=np.float32).reshape(experts, width)
            made[f"{kind}.{module}"] = ((count * 7 + 5 * k + 3 * m) % 64 - 32) / 32
    return made


def package(
    edit: Edit = lambda document, tensors: None, *, dtype: str = "i8", seal: bool = True, old: bool = False
) -> bytes:
    """The valid package after an edit of its manifest and stored tensors.

    Args:
        seal: Whether the digest is computed again after the edit.
        old: Whether it is of format 1, which has no draft table and no route.
    """
    stored = encode_vectors(vectors(), dtype)
    bounds = {kind: float(np.ceil(peak)) for kind, peak in decode_vectors(stored).peaks.items()}
    if old:
        document = old_manifest().sealed(bounds, "").to_dict()
    else:
        document = manifest().sealed(bounds, "", draft_table().meta(), route().meta()).to_dict()
        stored |= {**draft_table().stored, **route().stored()}
    document["digest"] = digest_of(document, stored)
    edit(document, stored)
    if seal:
        document["digest"] = digest_of(document, stored)
    return pack({"lime": canonical_json(document).decode()}, stored)


def valid_package() -> bytes:
    return package()


def with_header(edit: Callable[[Document], object]) -> bytes:
    """The valid package with an edited header and unchanged tensor data."""
    data = valid_package()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    edit(header)
    return framed(json.dumps(header).encode(), data[8 + size :])


def with_manifest(edit: Callable[[str], str]) -> bytes:
    """The valid package with an edited manifest text."""
    container = unpack(valid_package())
    return pack({"lime": edit(container.metadata["lime"])}, container.tensors)


def framed(header: bytes, body: bytes = b"") -> bytes:
    """A package file of any header and body, with the right header length in front."""
    return len(header).to_bytes(8, "little") + header + body


@dataclass(frozen=True)
class Case:
    """Bytes that must be refused, and a part of each fault that must be reported; no other fault may be."""

    name: str
    make: Callable[[], bytes]
    faults: tuple[str, ...]


def manifest_case(name: str, /, *faults: str, old: bool = False, **values: Any) -> Case:
    """A case that sets keys of the manifest; ``a__b`` means key b of a."""

    def edit(document: Document, _: Tensors) -> None:
        for path, value in values.items():
            *parents, last = path.split("__")
            target: Any = document
            for parent in parents:
                target = target[int(parent) if parent.isdigit() else parent]
            target[last] = value

    return Case(name, lambda: package(edit, old=old), faults)


def tensor_case(name: str, edit: Callable[[Tensors], object], *faults: str, dtype: str = "i8") -> Case:
    """A case that edits the stored tensors."""
    return Case(name, lambda: package(lambda _, tensors: edit(tensors), dtype=dtype), faults)


def header_case(name: str, edit: Callable[[Document], object], *faults: str) -> Case:
    """A case that edits the header."""
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
        ("contains 16401 tensors; expected at most 16384",),
    ),
    Case("trailing bytes", lambda: valid_package() + b"\0", ("1 bytes follow the last tensor",)),
    Case("cut short", lambda: valid_package()[:-5], ("the file is cut short",)),
    Case("damaged value", lambda: _flip(valid_package()), ("the file was changed or damaged",)),
    header_case(
        "text for metadata", lambda h: h.update(__metadata__="x"), "not a skill package", "__metadata__ is 'x'"
    ),
    header_case("other metadata", lambda h: h["__metadata__"].update(format="pt"), "unknown key 'format'"),
    header_case(
        "number as manifest", lambda h: h.update(__metadata__={"lime": 1}), "has no key", "expected an object of te"
    ),
    header_case("no lime", lambda h: h.update(__metadata__={"format": "pt"}), "no key 'lime'", "unknown key 'format'"),
    header_case("entry is a list", lambda h: h.update({Q: []}), f"tensor '{Q}': []; expected an object with dtype"),
    header_case("entry with a key more", lambda h: h[Q].update(device="cpu"), "expected an object with dtype"),
    header_case("F32", lambda h: h[Q].update(dtype="F32"), f"tensor '{Q}': dtype 'F32'; expected F16 or I8"),
    header_case("pickle as dtype", lambda h: h[Q].update(dtype=["O"]), "dtype ['O']; expected F16 or I8"),
    header_case("three sides", lambda h: h[Q].update(shape=[2, 20, 2]), "shape [2, 20, 2]; expected [rows, columns]"),
    header_case("side of zero", lambda h: h[Q].update(shape=[0, 40]), "shape [0, 40]; expected"),
    header_case("negative side", lambda h: h[Q].update(shape=[-2, -40]), "shape [-2, -40]; expected"),
    header_case("huge side", lambda h: h[Q].update(shape=[2, 2**60]), "each from 1 to 16777216"),
    header_case("side of 2.0", lambda h: h[Q].update(shape=[2.0, 40]), "shape [2.0, 40]; expected"),
    header_case("true as a side", lambda h: h[Q].update(shape=[True, 80]), "shape [True, 80]; expected"),
    header_case("shape does not fill", lambda h: h[Q].update(shape=[2, 39]), "hold 80 bytes; I8 [2, 39] takes 78"),
    header_case("offsets backwards", lambda h: h[Q].update(data_offsets=[200, 120]), "hold -80 bytes"),
    header_case(
        "offsets of text", lambda h: h[Q].update(data_offsets="01"), "data_offsets '01'; expected [begin, end]"
    ),
    header_case("overlap", _overlap, "overlaps the tensor before it", "leaves a gap before it"),
    header_case("entry dropped", lambda h: h.pop(Q), "leaves a gap before it"),
]

MANIFEST = [
    Case("manifest is no JSON", lambda: with_manifest(lambda t: t[:-1]), ("the manifest is not strict JSON",)),
    Case("manifest is a list", lambda: with_manifest(lambda t: "[]"), ("manifest is []; expected an object",)),
    Case("manifest is deep", lambda: with_manifest(lambda t: '{"a":' * 9999), ("nested too deeply",)),
    Case("manifest too long", lambda: with_manifest(lambda t: " " * (2**22 + 1)), ("over 4194304",)),
    Case("manifest has spaces", lambda: with_manifest(lambda t: t.replace(":", ": ")), ("not in canonical form",)),
    Case("huge number", lambda: with_manifest(lambda t: t.replace("0.7,", "1e999,")), ("gamma is inf",)),
    Case("five thousand digits", lambda: with_manifest(lambda t: '{"a":' + "9" * 5000 + "}"), ("not strict JSON",)),
    manifest_case("format 3", "format version 3; this lime-edge reads versions 1 and 2: update lime-edge", format=3),
    manifest_case("format 1.0", "manifest.format is 1.0", format=1.0),
    manifest_case("unknown key", "manifest has the unknown key 'weights'", weights=1),
    manifest_case("control character in a key", r"unknown key '\x1b[2J'", **dict[str, Any]({"\x1b[2J": 1})),
    Case("key missing", lambda: package(lambda d, _: d.pop("license")), ("manifest lacks the key 'license'",)),
    manifest_case("name with a slash", "manifest.name is '../tiny'; expected a name", name="../tiny"),
    manifest_case("name with a newline", r"manifest.name is 'tiny\n'", name="tiny\n"),
    manifest_case("capital name", "manifest.name is 'Tiny'", name="Tiny"),
    manifest_case("long name", "expected a name of 1 to 64 characters", name="a" * 65),
    manifest_case("version", "manifest.version is '1.0'; expected a semantic version", version="1.0"),
    manifest_case("version with a leading zero", "manifest.version is '01.0.0'", version="01.0.0"),
    manifest_case("version in Arabic digits", "manifest.version is '1.0.٢'", version="1.0.٢"),
    manifest_case("licence", "expected an SPDX licence", license="mine!"),
    manifest_case("created", "manifest.created is '2026-02-30'; expected a date", created="2026-02-30"),
    manifest_case("created in wide digits", "expected a date, YYYY-MM-DD", created="٢٠٢٦-01-31"),
    manifest_case("created as a number", "manifest.created is 2026", created=2026),
    manifest_case("author with a bell", r"manifest.author contains ['\x07']", author="a\x07"),
    manifest_case("description too long", "manifest.description is", description="a" * 4001),
    manifest_case("backbone digest", "manifest.backbone is 'BBB", backbone="B" * 64),
    manifest_case("experts differ", "experts is 3 but routing.experts is 2", experts=3),
    manifest_case("experts zero", "manifest.experts is 0", "but routing.experts is 2", experts=0),
    manifest_case(
        "routing with a wrong mode", "manifest.routing: mode is 'best'; expected one of", routing__mode="best"
    ),
    manifest_case("routing with a key more", "manifest.routing: unknown key 'noise'", routing__noise=0.1),
    manifest_case("routing with a list", "manifest.routing is {", routing__mode=[]),
    manifest_case("routing is null", "manifest.routing is None", routing=None),
    manifest_case("activation", "manifest.activation is 'never'; expected one of always, response", activation="never"),
    manifest_case("prompt key", "manifest.prompt has the unknown key 'template'", prompt__template="x"),
    manifest_case("generation", "manifest.prompt.generation.temperature is -1", prompt__generation={"temperature": -1}),
    manifest_case("generation key", "generation has the unknown key 'seed'", prompt__generation={"seed": 1}),
    manifest_case("stop", "manifest.prompt.stop[0] is ''; expected text of 1 to 200", prompt__stop=[""]),
    manifest_case("bounds of a kind unknown", "manifest.bounds has the unknown key 'bias'", bounds__bias=1),
    manifest_case("bounds of a kind absent", "but the tensors are ['expert', 'gain', 'shift']", bounds__rank=1),
    manifest_case("negative bound", "manifest.bounds.expert is -1", bounds__expert=-1),
    manifest_case("true as a bound", "manifest.bounds.expert is True; expected a number", bounds__expert=True),
    manifest_case(
        "bound too low", "expert reaches 1.00091; manifest.bounds.expert promises at most 0.5", bounds__expert=0.5
    ),
    manifest_case("golden lengths", "lists of [2, 1, 2] for top_ids, skill_logits", golden__0__skill_logits=[1]),
    manifest_case("golden id", "golden[0].prompt_ids[0] is -1", golden__0__prompt_ids=[-1]),
    manifest_case(
        "golden ids too many", "is a list of 4097; expected a list of 1 to 4096", golden__0__prompt_ids=[1] * 4097
    ),
    manifest_case("golden too many", "manifest.golden is a list of 17", golden=manifest().golden * 17),
    manifest_case("golden is text", "manifest.golden[0] is 'x'; expected an object", golden=["x"]),
    manifest_case("metric", "manifest.metrics[0].rows is 1.5", metrics__0__rows=1.5),
    manifest_case("centroid", "manifest.centroid[0] is 'x'", old=True, centroid=["x"]),
    manifest_case("two faults", "manifest.name is ''", "manifest.version is ''", name="", version=""),
    Case(
        "digest of another", lambda: package(lambda d, _: d.update(name="other"), seal=False), ("changed or damaged",)
    ),
    Case(
        "surrogate in text",
        lambda: with_header(
            lambda h: h.update(__metadata__={"lime": h["__metadata__"]["lime"].replace("brief", "\ud800")})
        ),
        (r"manifest.interface.input.system contains ['\ud800']",),
    ),
]

TENSORS = [
    tensor_case(
        "kind unknown",
        lambda t: _move(t, Q, "bias.m"),
        "'bias.m': expected a name",
        "has no vector",
        "but the tensors are ['bias', ",
    ),
    tensor_case("no module", lambda t: t.update({"expert.": t[Q]}), "tensor 'expert.': expected a name"),
    tensor_case(
        "module with a space", lambda t: t.update({"expert.a b": t[Q]}), "tensor 'expert.a b': expected a name"
    ),
    header_case(
        "surrogate in a name", lambda h: h.update({"expert.\ud800": h.pop(Q)}), r"'expert.\ud800'", "has no vector"
    ),
    tensor_case("scale missing", lambda t: t.pop(Q + ".scale"), f"tensor {Q}.scale is missing"),
    tensor_case("scale alone", lambda t: t.pop(Q), f"tensor {Q}.scale has no vector"),
    tensor_case("scale not wanted", lambda t: t.update({Q + ".scale": abs(t[Q])}), "is not allowed", dtype="f16"),
    tensor_case(
        "scale too narrow", lambda t: t.update({Q + ".scale": t[Q + ".scale"][:, :1]}), "expected float16 [2, 2]"
    ),
    tensor_case(
        "scale of int8", lambda t: t.update({Q + ".scale": t[Q][:, :2]}), "is int8 [2, 2]; expected float16 [2, 2]"
    ),
    tensor_case("both types", lambda t: t.update({"gain.m": t[Q + ".scale"]}), "some vectors are F16 and some I8"),
    tensor_case(
        "one row", lambda t: t.update({Q: t[Q][:1]}), "has 1 rows; expected E = 2", "is float16 [2, 2]; expected"
    ),
    tensor_case(
        "widths differ", lambda t: t.update({Q: t[Q][:, :39]}), "module layers.0.q_proj has widths {'expert': 39"
    ),
    tensor_case(
        "infinite scale", lambda t: _poke(t, Q + ".scale", np.inf), f"tensor {Q}.scale contains numbers that are not"
    ),
    tensor_case("NaN", lambda t: _poke(t, Q, np.nan), f"tensor {Q} contains numbers that are not finite", dtype="f16"),
    tensor_case("negative scale", lambda t: _poke(t, Q + ".scale", -1), "contains negative scales"),
    tensor_case("-128", lambda t: _poke(t, Q, -128), f"tensor {Q} contains -128"),
    tensor_case("over the bounds", lambda t: _poke(t, Q + ".scale", 100), "promises at most"),
]

MALFORMED = CONTAINER + MANIFEST + TENSORS


def assert_refused(path: Path, case: Case) -> None:
    """Write a case to `path`, and check that reading it fails with its faults and names the file."""
    path.write_bytes(case.make())
    with pytest.raises(SkillFormatError) as caught:
        read_skill(path)
    assert str(path) in caught.value.message
    assert_faults(caught.value, case.faults)


def assert_faults(error: LimeError, expected: tuple[str, ...]) -> None:
    """Check that every expected fragment is part of a reported fault, and that there are no other faults."""
    faults = error.faults or (error.message,)
    assert len(faults) == len(expected), error
    for fragment in expected:
        assert any(fragment in fault for fault in faults), (fragment, faults)
