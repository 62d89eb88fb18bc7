"""lime.json: written and read back, and every contradiction rejected."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lime_edge.contract.model import ModelContract, read_contract
from lime_edge.contract.module_table import Module, ModuleTable
from lime_edge.contract.routing import Routing
from lime_edge.contract.vector_kinds import PREFIX
from lime_edge.errors import ModelError

TABLE = ModuleTable((Module("a", 50, 4), Module("b", 70, 4)), 3, ("expert", "gain"), frozenset({"b"}))
CONTRACT = ModelContract(
    "tiny", "main", "b" * 64, "a" * 64, "int4", Routing(experts=3), TABLE, (("model.onnx", "0"), ("weights", "1"))
)


def changed(change: Callable[[Any], object]) -> str:
    document = json.loads(CONTRACT.to_json())
    change(document)
    return json.dumps(document)


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        replace(TABLE, gain_only=frozenset()),
        replace(TABLE, kinds=("gain",), gain_only=frozenset()),
        ModuleTable((Module("e", 64, 2),), 1, PREFIX),
    ],
)
def test_json_and_back(table: ModuleTable, tmp_path: Path) -> None:
    contract = replace(CONTRACT, table=table, routing=Routing(experts=table.experts))
    (tmp_path / "lime.json").write_text(contract.to_json(), "utf-8")
    assert read_contract(tmp_path) == contract


def test_sizes_and_parts_are_optional(tmp_path: Path) -> None:
    assert not {"sizes", "parts"} & json.loads(CONTRACT.to_json())["graph"].keys()  # a model of an early version
    sizes, parts = (("model.onnx", 5), ("weights", 10**10)), (("output head", 9), ("embedding", 0))
    contract = replace(CONTRACT, sizes=sizes, parts=parts)
    (tmp_path / "lime.json").write_text(contract.to_json(), "utf-8")
    assert read_contract(tmp_path) == contract
    assert contract.graph_digest == CONTRACT.graph_digest


CONTRADICTIONS: list[tuple[Callable[[Any], object], str]] = [
    (lambda d: d.update(kinds=["gain", "expert"]), "kinds are ['gain', 'expert']; expected ['prefix'], or some of"),
    (lambda d: d.update(kinds=["prefix"]), "a soft prefix has one module and one expert, not 2 and 3"),
    (lambda d: d["modules"][0].update(name="b"), "the module table is empty or names a module twice"),
    (lambda d: d["graph"].update(opset=2), "operator set 2; this version supports 1"),
    (lambda d: d.update(kinds=["expert"]), "some modules have only a gain, but kinds does not contain gain"),
    (lambda d: d["modules"][0]["offsets"].update(gain=51), "the offsets do not follow from the module table"),
    (lambda d: d.update(row_size=1), "the offsets do not follow from the module table"),
    (lambda d: d["modules"][1].update(rank=5), "the digest of the module table does not match its content"),
    (lambda d: d["graph"]["files"].update({"model.onnx": "2"}), "the digest of the graph does not match its files"),
    (lambda d: d["graph"].update(sizes={"other": 1}), "sizes names other; expected some of model.onnx, weights"),
]


@pytest.mark.parametrize(("change", "fault"), CONTRADICTIONS)
def test_contradictions(change: Callable[[Any], object], fault: str) -> None:
    with pytest.raises(ModelError, match=r"^lime.json contradicts itself: export again") as caught:
        ModelContract.from_json(changed(change))
    assert any(found.startswith(fault) for found in caught.value.faults)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "lime.json cannot be read: JSONDecodeError"),
        ("[]", "lime.json cannot be read: AttributeError"),
        ("[" * 100_000, "lime.json cannot be read: RecursionError"),
        (changed(lambda d: d.update(format=2)), "lime.json has format 2; this version reads 1: export again"),
        (changed(lambda d: d.pop("kinds")), "lime.json cannot be read: KeyError: 'kinds'; export again"),
        (changed(lambda d: d["modules"][0].update(rank=0)), "0 is not a size"),
        (changed(lambda d: d["modules"][0].update(rank=True)), "True is not a size"),
        (changed(lambda d: d["modules"][0].update(rank=2**24)), "16777216 is not a size"),
        (changed(lambda d: d["routing"].update(window=99)), "window is 99"),
        (changed(lambda d: d["graph"].update(sizes={"weights": -1})), "sizes of weights is -1; expected a number of"),
        (changed(lambda d: d["graph"].update(parts={"other": True})), "parts of other is True; expected a number of"),
        (changed(lambda d: d["graph"].update(sizes=[1])), "lime.json cannot be read: AttributeError"),
    ],
)
def test_documents_that_are_rejected(text: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        ModelContract.from_json(text)
    assert message in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"lime\.json cannot be read; expected the file that `lime-edge export`"):
        read_contract(tmp_path)
