"""Schemas, expressions and grammars: every finished answer is valid, and every step can be taken back."""

from __future__ import annotations

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lime_edge.errors import ConfigError, MissingExtraError, ModelError, SkillFormatError
from lime_edge.runtime.constraints.answer_constraints import AnswerConstraints
from lime_edge.runtime.constraints.answer_spec import AnswerSpec
from lime_edge.runtime.constraints.grammar import Grammar, open_tokenizer
from tests.support.runtime_models import tiny_text

from .walks import VOCABULARY, constraint, constraints, walk

_TEXT = {"type": "string", "maxLength": 5}
SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"z": _TEXT, "a": {"type": "integer", "minimum": -5, "maximum": 1200}}},
    {
        "type": "object",
        "properties": {
            "intent": {"enum": ["Book", "Play", "Book a table"]},
            "to": {"type": "array", "items": _TEXT, "maxItems": 2},
        },
        "required": ["to", "intent"],
        "additionalProperties": False,
    },
    {"anyOf": [{"type": "null"}, {"type": "boolean"}, {"const": {"a": [1, "é"]}}]},
    {"type": "array", "minItems": 2, "maxItems": 3, "items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"enum": [1, 2.5]}}},
    {"type": "string", "pattern": "^[a-c]{2,4}$"},
]
EXPRESSIONS = ["[a-c]{3,8}@x", "yes|no( sir)?", r"[0-9]{4}-[0-9]{2}", "é+/\"'\\\\\n?", "a*b{2}", r"\(x\)|\[y\]"]


def conforms(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """A validator of the keywords that SCHEMAS use."""
    if "$ref" in schema:
        return conforms(root["$defs"]["n"], value, root)
    if "anyOf" in schema:
        return any(conforms(one, value, root) for one in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None)}
    if not isinstance(value, kinds[schema["type"]]):
        return False
    if isinstance(value, dict):
        named = schema["properties"]
        known = schema.get("additionalProperties", True) or set(value) <= set(named)
        inner = all(conforms(named[key], found, root) for key, found in value.items() if key in named)
        return known and inner and set(schema.get("required", ())) <= set(value)
    if isinstance(value, list):
        count = schema.get("minItems", 0) <= len(value) <= schema["maxItems"]
        return count and all(conforms(schema["items"], found, root) for found in value)
    if isinstance(value, str):
        return len(value) <= schema.get("maxLength", 99) and bool(re.search(schema.get("pattern", ""), value))
    return isinstance(value, bool) or value is None or schema["minimum"] <= value <= schema["maximum"]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SCHEMAS), st.integers(0, 10**6))
def test_json_answers_are_valid(schema: dict[str, Any], seed: int) -> None:
    row = constraint(schema)
    text, _ = walk(row, seed)
    if row.done:
        value = json.loads(text)
        assert conforms(schema, value, schema)
        if not isinstance(value, dict):
            assert text == json.dumps(value, ensure_ascii=False) or "\\" in text


@pytest.mark.parametrize("schema", SCHEMAS)
def test_json_answers_come_to_an_end(schema: dict[str, Any]) -> None:
    assert any(walk(constraint(schema), seed)[1][-1] == tiny_text().end_id for seed in range(20))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(EXPRESSIONS), st.integers(0, 10**6))
def test_answers_match_the_expression(pattern: str, seed: int) -> None:
    row = constraint(AnswerSpec("regex", pattern))
    text, _ = walk(row, seed)
    if row.done:
        assert re.fullmatch(pattern, text)


def test_layout_of_json_is_that_of_dumps_unless_the_schema_says_otherwise() -> None:
    schema = {"type": "array", "prefixItems": [{"const": {"a": 1, "b": [1, 2]}}], "minItems": 1, "items": False}
    value: Any = [{"a": 1, "b": [1, 2]}]
    assert walk(constraint(schema), 0)[0] == json.dumps(value)
    tight = {"item_separator": ",", "key_separator": ":"}
    assert walk(constraint(schema | {"x-guidance": tight}), 0)[0] == json.dumps(value, separators=(",", ":"))


def test_a_grammar() -> None:
    row = constraint(AnswerSpec("grammar", 'start: "(" start ")" | "x"'))
    text, _ = walk(row, 3)
    assert not row.done or re.fullmatch(r"\(*x\)*", text)


def test_a_grammar_copies_words_of_the_request() -> None:
    """The recipe of docs/decisions/answers.md: runs of whole words, without spaces around them."""
    request = "play so what by miles davis, please"
    grammar = f"""start: "{{\\"artist\\": \\"" COPIED "\\"}}"
COPIED: %regex {{"substring_words": {json.dumps(request)}}} & /[^ ](.*[^ ])?/"""
    pieces = re.findall(r"\w+|\W", request)
    runs = {"".join(pieces[i:j]).strip() for i in range(len(pieces)) for j in range(i, len(pieces) + 1)}
    found = {json.loads(walk(constraint(AnswerSpec("grammar", grammar)), seed)[0])["artist"] for seed in range(60)}
    assert found <= runs - {""}
    assert len(found) > 10


def test_forced_text_is_taken_as_the_tokenizer_writes_it() -> None:
    text = tiny_text()
    whole = constraint({"const": " the answer"})
    assert whole.forced() == [*text.encode('" the answer"'), text.end_id]
    schema = {"type": "object", "properties": {"answer": {"enum": ["yes", "no"]}}, "required": ["answer"]}
    part = text.tokenizer.decode(constraint(schema).forced())
    assert part == '{"answer": "'


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*SCHEMAS, *EXPRESSIONS, ["a", "ab", "ba", " the"]]), st.integers(0, 10**6), st.data())
def test_rollback_restores_every_mask(answers: Any, seed: int, data: st.DataObject) -> None:
    spec = AnswerSpec("regex", answers) if isinstance(answers, str) else AnswerSpec.of(answers)
    row, rng = constraint(spec), np.random.default_rng(seed)
    states, ids = [(row.allowed(), row.forced(), row.complete, row.done)], list[int]()
    for _ in range(data.draw(st.integers(5, 25))):
        back = data.draw(st.integers(0, min(len(ids), 6))) if len(ids) > 3 or row.done else 0
        row.rollback(back)
        del ids[len(ids) - back :], states[len(states) - back :]
        np.testing.assert_array_equal(row.allowed(), states[-1][0])
        assert (row.forced(), row.complete, row.done) == states[-1][1:]
        if not row.done:
            ids.append(int(rng.choice(np.flatnonzero(states[-1][0]))))
            row.accept(ids[-1])
            states.append((row.allowed(), row.forced(), row.complete, row.done))
    row.rollback(len(ids))
    np.testing.assert_array_equal(row.allowed(), states[0][0])


def test_rows_and_threads_do_not_disturb_each_other() -> None:
    seeds = [(schema, seed) for schema in SCHEMAS for seed in range(8)]
    alone = [walk(constraint(schema), seed) for schema, seed in seeds]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda one: walk(constraint(one[0]), one[1]), seeds)) == alone


@pytest.mark.parametrize(
    ("kind", "value", "fault"),
    [
        ("regex", "(", "unclosed group"),
        ("regex", "(?=a)b", "look-ahead"),
        ("regex", r"(a)\1", "backreferences"),
        ("regex", r"[^\s\S]", "NoExtension"),
        ("schema", {"type": "strng"}, "Invalid type: strng"),
        ("schema", {"$ref": "https://example.com/x"}, "retrieving it failed"),
        ("schema", {"allOf": [{"type": "string"}, {"type": "integer"}]}, "Unsatisfiable"),
        ("schema", {"not": {}}, "Unimplemented"),
        ("schema", {"$ref": "#"}, "NoExtension"),
        ("schema", {"allOf": [{"anyOf": [{"required": [f"{a}{n}"]} for a in "ab"]} for n in range(24)]}, "too large"),
        ("grammar", 'start: "a" foo', "unknown name"),
    ],
)
def test_what_llguidance_refuses(kind: str, value: Any, fault: str) -> None:
    spec = AnswerSpec(kind, value)
    with pytest.raises(ConfigError, match=f"the {kind} of the answers is invalid.*{fault}"):
        constraints().constrain(spec)
    with pytest.raises(SkillFormatError, match=fault):
        constraints().constrain(spec, SkillFormatError)


def _many(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{n}": {"const": n} for n in range(count)}}


def test_a_step_over_the_limits_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"the schema of the answers is invalid or too complex: .*row has"):
        constraint(_many(900))
    row = constraint({"anyOf": [{"const": 1}, _many(900)]})
    token = tiny_text().encode("{")[0]
    assert row.allowed()[token]
    with pytest.raises(ConfigError, match=r"the answer cannot be continued: .*row has"):
        row.accept(token)


def test_long_forced_text() -> None:
    level = {"type": "array", "minItems": 900, "items": {"const": "x" * 500}}
    row = constraint({"type": "array", "minItems": 900, "items": level})
    forced = row.forced()
    assert len(forced) == 2048
    for token in forced[:2000]:
        assert np.flatnonzero(row.allowed()).tolist() == [token]
        row.accept(token)
    row.rollback(1999)
    assert row.forced()[:2047] == forced[1:]


def test_text_of_special_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"it contains .*; expected no text of a special token"):
        constraint({"const": "<|im_end|>"})
    row = constraint(AnswerSpec("regex", "x?<[|]im_end[|]>"))  # hidden: an error when it is forced
    with pytest.raises(ConfigError, match="the answer cannot be continued"):
        [walk(row, seed) for seed in range(3)]


def test_misuse() -> None:
    row = constraint(AnswerSpec("regex", "ab"))
    with pytest.raises(ConfigError, match="token 2 is not allowed here"):
        row.accept(tiny_text().end_id)
    with pytest.raises(ConfigError, match="rollback of 1 tokens; 0 were accepted"):
        row.rollback(1)
    with pytest.raises(ConfigError, match="the answer cannot be continued"):
        row.accept(tiny_text().encode("z")[0])


def test_without_llguidance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    fresh = AnswerConstraints(tiny_text(), VOCABULARY)
    with pytest.raises(MissingExtraError, match=r"pip install 'lime-edge\[constrain\]'"):
        fresh.constrain(AnswerSpec("regex", "a"))
    assert fresh.constrain(AnswerSpec.of(["yes"])) is not None


def test_a_tokenizer_that_llguidance_cannot_use() -> None:
    class Broken:
        def get_vocab_size(self) -> int:
            return 3

        def to_str(self) -> str:
            return "{"

    class Stub:
        tokenizer, eos_ids = Broken(), frozenset({2})

    with pytest.raises(ModelError, match="llguidance cannot use this model's tokenizer"):
        open_tokenizer(Stub(), 3)  # type: ignore[arg-type]


def test_compiling_by_hand() -> None:
    tokenizer = open_tokenizer(tiny_text(), VOCABULARY)
    assert walk(Grammar(AnswerSpec("regex", "yes"), tokenizer, tiny_text(), VOCABULARY).start(), 0)[0] == "yes"
