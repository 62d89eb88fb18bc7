"""Malformed packages of format 2: interface, how a skill was made, draft table and route.

A continuation of the table in tests/support/faults/malformed.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.support.faults.malformed import (
    Case,
    Document,
    Q,
    Tensors,
    draft_table,
    header_case,
    manifest_case,
    package,
    tensor_case,
    with_manifest,
)


def _interface(name: str, *faults: str, **values: Any) -> Case:
    """A case that sets keys of the interface."""
    return manifest_case(name, *faults, **{f"interface__{path}": value for path, value in values.items()})


def _answers(name: str, kind: Any, value: Any, fault: str) -> Case:
    return _interface(f"answers {name}", f"manifest.interface.answers{fault}", answers={"kind": kind, "value": value})


def _with(name: str, edit: Callable[[Document, Tensors], object], *faults: str, old: bool = False) -> Case:
    return Case(name, lambda: package(edit, old=old), faults)


def _put(name: str, tensor: str, place: Any, value: Any, fault: str) -> Case:
    """A case that overwrites numbers of the draft table, and must be refused for that tensor."""

    def edit(tensors: Tensors) -> None:
        tensors[f"draft.{tensor}"] = tensors[f"draft.{tensor}"].copy()
        tensors[f"draft.{tensor}"][place] = value

    return tensor_case(f"draft {name}", edit, f"tensor draft.{tensor} {fault}")


def _retyped(tensor: str, dtype: str, fault: str) -> Case:
    def edit(tensors: Tensors) -> None:
        tensors[f"draft.{tensor}"] = tensors[f"draft.{tensor}"].astype(dtype)

    return tensor_case(f"draft {tensor} as {dtype}", edit, fault)


def _large(document: Document, tensors: Tensors) -> None:
    """A table of 70,012 bytes."""
    for name in ("contexts", "next", "probability"):
        tensors[f"draft.{name}"] = np.repeat(tensors[f"draft.{name}"][:1], 10_000, axis=0)
    document["draft"]["entries"] = 10_000


def _order_7(document: Document, tensors: Tensors) -> None:
    tensors["draft.contexts"] = np.pad(tensors["draft.contexts"], ((0, 0), (4, 0)))
    document["draft"]["order"] = 7


def _route(value: Any) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({"route.centroids": np.asarray(value, np.float16)})


INTERFACES = [
    Case("no interface", lambda: package(lambda d, _: d.pop("interface")), ("manifest lacks the key 'interface'",)),
    manifest_case("interface is text", "manifest.interface is 'x'; expected an object with input, ans", interface="x"),
    _interface("interface key", "manifest.interface has the unknown key 'output'", output={}),
    _interface("input key", "manifest.interface.input has the unknown key 'template'", input__template="x"),
    Case(
        "input without suffix",
        lambda: package(lambda d, _: d["interface"]["input"].pop("suffix")),
        ("manifest.interface.input lacks the key 'suffix'",),
    ),
    _interface("system is a list", "manifest.interface.input.system is []; expected text", input__system=[]),
    _interface("system too long", "manifest.interface.input.system is 'xxx", input__system="x" * 100_001),
    _interface("prefix too long", "input.prefix is 'xxx", input__prefix="x" * 20_001),
    _interface("suffix is null", "input.suffix is None; expected text of at most 20000", input__suffix=None),
    Case(
        "surrogate in the prefix",
        lambda: with_manifest(lambda t: t.replace("Is this", r"\udc00")),
        (r"manifest.interface.input.prefix contains ['\udc00']",),
    ),
    _answers("of a kind unknown", "grammar", "x", ".kind is 'grammar'; expected one of choices, schema, regex, text"),
    _answers("of two kinds", ["text"], None, ".kind is ['text']; expected one of"),
    _interface("answers without value", "answers lacks the key 'value'", answers={"kind": "text"}),
    _interface("answers key", "answers has the unknown key 'x'", answers={"kind": "text", "value": None, "x": 1}),
    _answers("without choices", "choices", [], ".value is a list of 0; expected a list of 1 to 1000"),
    _answers("of 1001 choices", "choices", [str(n) for n in range(1001)], ".value is a list of 1001"),
    _answers("with a choice twice", "choices", ["a", "b", "a"], ".value contains 'a' twice; expected distinct texts"),
    _answers("with an empty choice", "choices", ["a", ""], ".value[1] is ''; expected text of 1 to 1000"),
    _answers("with a long choice", "choices", ["a" * 1001], ".value[0] is 'aaa"),
    _answers("with a list as a choice", "choices", [["a"]], ".value[0] is ['a']; expected text"),
    _answers("of choices as text", "choices", "ab", ".value is 'ab'; expected a list of"),
    _answers("of a schema as an object", "schema", {"type": "object"}, ".value is {'type': 'object'}; expected a JSON"),
    _answers("of a schema that is a list", "schema", "[]", ".value is []; expected a JSON schema, an object"),
    _answers("of a schema that is no JSON", "schema", "{type}", ".value is not strict JSON"),
    _answers("of a schema with a key twice", "schema", '{"a":1,"a":2}', ".value is not strict JSON: key 'a' appears"),
    _answers("of a schema with NaN", "schema", '{"a":NaN}', ".value is not strict JSON: NaN"),
    _answers("of a long schema", "schema", '{"a":"' + "x" * 2**16 + '"}', ".value is '{"),
    _answers("of a deep schema", "schema", '{"a":' * 33 + "1" + "}" * 33, ".value has objects and lists more than 32"),
    _answers("of a bottomless schema", "schema", '{"a":' * 13_000, ".value is not strict JSON: nested too deeply"),
    _answers("of a schema of brackets", "schema", "[" * 60_000, ".value is not strict JSON: nested too deeply"),
    _answers("of a schema with 1e999", "schema", '{"a":[1e999]}', ".value has a number that is inf; expected"),
    _answers("of a schema with 2^53 + 1", "schema", json.dumps({"a": 2**53 + 1}), ".value has a number that is 9007"),
    _answers("of a schema with a surrogate", "schema", r'{"\ud800":1}', ".value has a text that contains"),
    _answers("of an empty regex", "regex", "", ".value is ''; expected text of 1 to 4096"),
    _answers("of a long regex", "regex", "a" * 4097, ".value is 'aaa"),
    _answers("of free text with a value", "text", "", ".value is ''; expected null"),
    _interface("no modality", "modality is a list of 0", modality=[]),
    _interface("modality unknown", "modality[0] is 'smell'; expected one of text", modality=["smell"]),
    _interface("modality is text", "modality is 'text'; expected a list", modality="text"),
    _interface("four examples", "examples is a list of 4; expected a list of 0 to 3", examples=["a"] * 4),
    _interface("empty example", "examples[0] is ''; expected text of 1 to 2000", examples=[""]),
    _interface("long example", "examples[0] is 'aaa", examples=["a" * 2001]),
    manifest_case("system in prompt", "manifest.prompt has the unknown key 'system'", prompt__system=None),
    manifest_case("centroid in format 2", "manifest has the unknown key 'centroid'", centroid=[0.5]),
    manifest_case("interface in format 1", "manifest has the unknown key 'interface'", old=True, interface={}),
]

MADE = [
    manifest_case("made somehow", "manifest.made.how is 'found'; expected one of learned, pro", made__how="found"),
    manifest_case("instruction", "manifest.made.instruction is None; expected one of", made__instruction=None),
    manifest_case("made key", "manifest.made has the unknown key 'by'", made__by="me"),
    manifest_case("made is null", "manifest.made is None; expected an object", made=None),
    manifest_case("data key", "manifest.made.data has the unknown key 'path'", made__data__path="/home"),
    manifest_case("negative rows", "manifest.made.data.rows is -1", made__data__rows=-1),
    manifest_case("share as overlap", "manifest.made.data.overlap is 0.5", made__data__overlap=0.5),
]

DRAFTS = [
    header_case("vector as I32", lambda h: h[Q].update(dtype="I32"), f"'{Q}': dtype 'I32'; expected F16 or I8"),
    header_case("vector as U8", lambda h: h[Q].update(dtype="U8"), f"'{Q}': dtype 'U8'; expected F16 or I8"),
    header_case("draft as F16", lambda h: h["draft.next"].update(dtype="F16"), "dtype 'F16'; expected I32, U16 or U8"),
    tensor_case(
        "draft tensor unknown",
        lambda t: t.update({"draft.weights": t["draft.next"]}),
        "tensor 'draft.weights': expected one of draft.tokens, draft.contexts",
    ),
    tensor_case("draft without tokens", lambda t: t.pop("draft.tokens"), "tensor draft.tokens is missing"),
    tensor_case(
        "draft without contexts",
        lambda t: t.pop("draft.contexts"),
        "tensor draft.contexts is missing",
        "manifest.draft is {'entries': 3, 'order': 3} but the tensors say None",
    ),
    _retyped("tokens", "uint16", "tensor draft.tokens is uint16 [3, 1]; expected int32 [3, 1]"),
    _retyped("contexts", "int32", "tensor draft.contexts is int32 [3, 2]; expected uint16 [3, 2]"),
    _retyped("next", "uint8", "tensor draft.next is uint8 [3, 1]; expected uint16 [3, 1]"),
    _retyped("probability", "uint16", "tensor draft.probability is uint16 [3, 1]; expected uint8 [3, 1]"),
    tensor_case(
        "draft with a next token missing",
        lambda t: t.update({"draft.next": t["draft.next"][1:]}),
        "tensor draft.next is uint16 [2, 1]; expected uint16 [3, 1]",
    ),
    tensor_case(
        "draft tokens in a row",
        lambda t: t.update({"draft.tokens": t["draft.tokens"].T}),
        "tensor draft.tokens is int32 [1, 3]; expected int32 [1, 1]",
    ),
    _with("draft over 64 KB", _large, "the draft table has 70012 bytes; expected at most 65536"),
    _with(
        "draft of order 7",
        _order_7,
        "manifest.draft.order is 7; expected a whole number from 2 to 6",
        "tensor draft.contexts is uint16 [3, 6]; expected uint16 [3, 5]",
    ),
    _put("negative id", "tokens", 0, -1, "is not a rising sequence of token ids from 0"),
    _put("id twice", "tokens", 1, 5, "is not a rising sequence"),
    _put("context out of range", "contexts", 2, [1, 4], "reaches 4; expected at most 3, the number of tokens"),
    _put("context with a gap", "contexts", 2, [1, 0], "has rows that are empty or not aligned to the right"),
    _put("empty context", "contexts", 0, [0, 0], "has rows that are empty or not aligned to the right"),
    _put("context twice", "contexts", 1, [0, 1], "has rows that repeat or are not sorted"),
    _put("unsorted contexts", "contexts", slice(0, 2), [[0, 2], [0, 1]], "has rows that repeat or are not sorted"),
    _put("next of none", "next", 0, 0, "has numbers from 0 to 3; expected 1 to 3"),
    _put("next out of range", "next", 0, 65535, "has numbers from 3 to 65535; expected 1 to 3"),
    _put("probability 0", "probability", 1, 0, "contains 0; expected 1 to 255"),
    tensor_case(
        "draft token unused",
        lambda t: t.update({"draft.tokens": np.array([[5], [6], [7], [8]], np.int32)}),
        "tensor draft.tokens has 1 tokens that no entry uses",
    ),
    manifest_case("draft entries", "but the tensors say {'entries': 3, 'order': 3}", draft__entries=4),
    manifest_case("draft key", "draft has the unknown key 'x'", draft={**draft_table().meta(), "x": 1}),
    _with("draft undeclared", lambda d, _: d.pop("draft"), "manifest.draft is None but the tensors say"),
    _with(
        "draft absent",
        lambda _, t: [t.pop(name) for name in draft_table().stored],
        "manifest.draft is {'entries': 3, 'order': 3} but the tensors say None",
    ),
    _with(
        "draft in format 1",
        lambda _, t: t.update(draft_table().stored),
        "manifest.draft is None but the tensors say",
        old=True,
    ),
]

ROUTES = [
    tensor_case("route tensor unknown", lambda t: t.update({"route.x": t["route.centroids"]}), "tensor 'route.x': exp"),
    tensor_case("five centroids", _route(np.zeros((5, 2))), "is float16 [5, 2]; expected float16, at most [4, 16384]"),
    tensor_case("wide centroids", _route(np.zeros((1, 16_385))), "tensor route.centroids is float16 [1, 16385]"),
    tensor_case("infinite centroid", _route([[np.inf, 0]]), "tensor route.centroids contains numbers that are not"),
    tensor_case(
        "centroids as I8",
        lambda t: t.update({"route.centroids": np.ones((1, 2), np.int8)}),
        "tensor route.centroids is int8 [1, 2]; expected float16",
    ),
    manifest_case("route layer", "manifest.route.layer is 1.5", route__layer=1.5),
    manifest_case("route pooling", "manifest.route.pooling is 'max'; expected one of mean, last", route__pooling="max"),
    _with("route undeclared", lambda d, _: d.pop("route"), "manifest.route is None but route.centroids is there"),
    _with("route absent", lambda _, t: t.pop("route.centroids"), "but route.centroids is missing"),
]

FORMAT_2 = INTERFACES + MADE + DRAFTS + ROUTES
