"""Conversations with a skill a turn: every answer is that of a plain run of the graph over the same tokens."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lime_edge.errors import ConfigError, UnknownSkillError
from lime_edge.runtime import Runtime
from lime_edge.runtime.decoding.contexts import common_length
from lime_edge.skills.package import read_skill
from tests.support import route_case
from tests.support.runtime_models import HEAD, contract, exported, skill

Ids = npt.NDArray[np.int64]
ACTIVATIONS = {"always": "always", "reply": "response"}  # of the skills of these names
NAMES = (None, "always", "reply")


def files() -> dict[str, Path]:
    return {name: skill(exported(), name, activation=activation) for name, activation in ACTIVATIONS.items()}


FILES = files()


@cache
def shared(prefix_cache: int) -> Runtime:
    return runtime(prefix_cache=prefix_cache)


def runtime(**arguments: Any) -> Runtime:
    made = Runtime.load(exported(), threads=1, **arguments)
    for path in FILES.values():
        made.load_skill(path)
    return made


class Graph:
    """The exported graph with a skill for every token: no cache, no batches, one whole sequence at a time."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self._session = ort.InferenceSession(exported() / "model.onnx", options, providers=["CPUExecutionProvider"])
        self._bank, ids = contract(exported()).table.bank(
            [read_skill(path).tensors for path in FILES.values()], np.float32
        )
        self.number = dict(zip((None, *FILES), ids.tolist(), strict=True))

    def next(self, ids: Ids, rows: Ids) -> int:
        """The likeliest token after a sequence whose tokens belong to these skills."""
        feeds = {
            "input_ids": ids[None],
            "attention_mask": np.ones((1, len(ids)), np.int64),
            "lime.bank": self._bank,
            "lime.skill_ids": rows[None],
        }
        for value in self._session.get_inputs():
            if value.name.startswith("past_key_values"):
                feeds[value.name] = np.zeros((1, value.shape[1], 0, HEAD), np.float32)
        return int(self._session.run(["logits"], feeds)[0][0, -1].argmax())


GRAPH = Graph()


@dataclass
class Definition:
    """A conversation by its definition."""

    made: Runtime
    ids: Ids = field(default_factory=lambda: np.zeros(0, np.int64))
    rows: Ids = field(default_factory=lambda: np.zeros(0, np.int64))
    messages: list[dict[str, str]] = field(default_factory=list)

    def turn(self, name: str | None, count: int, switch: tuple[int, str | None] | None = None) -> list[int]:
        """The tokens of an answer; after so many of them another skill goes on."""
        tokens = self.made._text.tokens(self.messages)
        start = tokens.boundary if ACTIVATIONS.get(name or "") == "response" else 0
        rows = np.where(np.arange(len(tokens.ids)) >= start, GRAPH.number[name], 0)
        known = min(common_length(self.ids, tokens.ids), len(tokens.ids) - 1)
        rows[:known] = self.rows[:known]
        ids = tokens.ids
        answer: list[int] = []
        while len(answer) < count and not (answer and answer[-1] in self.made._text.eos_ids):
            if switch is not None and len(answer) == switch[0]:
                name = switch[1]
                rows[-1] = GRAPH.number[name]
            answer.append(GRAPH.next(ids, rows))
            ids, rows = np.append(ids, answer[-1]), np.append(rows, GRAPH.number[name])
        self.ids, self.rows = ids, rows
        self.messages.append({"role": "assistant", "content": self.text(answer)})
        return answer

    def text(self, ids: list[int]) -> str:
        return self.made._text.tokenizer.decode([one for one in ids if one not in self.made._text.eos_ids])


STEPS = st.tuples(
    st.sampled_from(["Hello", "and you?", "1 2", "é中😀", "no"]),
    st.sampled_from(NAMES),
    st.integers(1, 5),
    st.none() | st.tuples(st.integers(1, 4), st.sampled_from(NAMES)),
)


@settings(max_examples=12)
@given(st.lists(STEPS, min_size=1, max_size=4), st.sampled_from([0, 2**20]))
def test_every_answer_is_that_of_the_definition(steps: list[Any], kept: int) -> None:
    made = shared(kept)
    definition = Definition(made)
    with made.session() as session:
        for text, name, count, switch in steps:
            session.append(text)
            definition.messages.append({"role": "user", "content": text})
            answer, switched = _answer(session, name, count, switch)
            expected = definition.turn(name, count, switched)
            assert list(answer.token_ids) == expected
            if answer.text != definition.messages[-1]["content"]:  # a cut character: what the user was shown counts
                definition.messages[-1]["content"] = answer.text
            assert session.messages == definition.messages
            np.testing.assert_array_equal(session._known.ids, definition.ids)


Switch = tuple[int, str | None]


def _answer(session: Any, name: str | None, count: int, wanted: Switch | None) -> tuple[Any, Switch | None]:
    """The answer of a turn, and after how many tokens another skill took over, if one did."""
    arguments = {"max_new_tokens": count, "speculate": False}
    if wanted is None:
        return session.generate(name, **arguments), None
    stream, switched = session.stream(name, **arguments), None
    for _ in stream:  # a piece may be of several tokens
        said = len(stream._job.answer.ids)
        if switched is None and said >= wanted[0] and not stream._job.done:
            stream.switch(wanted[1])
            switched = said, wanted[1]
    taken = stream.generation.receipt["switches"]
    return stream.generation, None if switched is None or not taken else (taken[0]["after_tokens"], wanted[1])


def test_turns_read_only_what_is_new() -> None:
    made = runtime(prefix_cache=0)
    with made.session() as session:
        session.append("Tell me something long about the sea and the ships on it")
        first = session.generate("reply", max_new_tokens=4)
        session.append("and now?")
        second = session.generate("always", max_new_tokens=4)
        kept = first.timings.prompt_tokens + first.timings.new_tokens
        assert second.timings.reused_tokens >= kept - 3
        names = [names for _, names in session.history]
        assert names[:3] == [(), ("reply",), ("always",)]
        assert sum(size for size, _ in session.history) == second.timings.prompt_tokens + second.timings.new_tokens
    assert made._prefixes.size == 0  # a closed session keeps nothing


def test_a_skill_that_was_unloaded_keeps_its_turns() -> None:
    made = runtime()
    definition, session = Definition(made), made.session()
    for step, name in enumerate(("always", "reply", "always")):
        for messages in (session.append, lambda text: definition.messages.append({"role": "user", "content": text})):
            messages(f"turn {step}")
        if step == 2:
            made.unload_skill("reply")
            made.load_skill(skill(exported(), "other", seed=5))  # may take its row, if that was free
        found = session.generate(name, max_new_tokens=4, speculate=False)
        assert list(found.token_ids) == definition.turn(name, 4)
        definition.messages[-1]["content"] = found.text
    with pytest.raises(UnknownSkillError):
        session.generate("reply")


def test_auto_chooses_for_a_turn() -> None:
    made = route_case.runtime("legal", "shell")
    session = made.session()
    session.append("law lease law lease law law")
    found = session.generate("auto", max_new_tokens=3)
    assert found.receipt["route"]["probabilities"].keys() == {"legal", "shell"}


def test_one_turn_at_a_time() -> None:
    made = runtime()
    session = made.session()
    with pytest.raises(ConfigError, match="the session is empty"):
        session.generate()
    session.append([{"role": "user", "content": "Hello"}])
    stream = session.stream(max_new_tokens=20)
    next(stream)
    for act in (session.generate, lambda: session.append("x")):
        with pytest.raises(ConfigError, match="a turn of this session is running"):
            act()
    stream.close()
    assert session.messages[-1]["role"] == "assistant"
    session.append("again")
    assert session.generate(max_new_tokens=2).token_ids
    session.close()
    with pytest.raises(ConfigError, match="the session is closed"):
        session.append("x")


@pytest.mark.parametrize("content", ["", [], [1], 5, None])
def test_what_cannot_be_appended(content: Any) -> None:
    session = runtime().session()
    if content == "":
        session.append(content)  # the chat template decides
        return
    with pytest.raises(ConfigError, match="expected text, a message, or a list of messages"):
        session.append(content)


def test_a_fault_of_a_turn_changes_nothing() -> None:
    made = runtime()
    session = made.session()
    session.append("Hello")
    for count in (0, 10**6):
        with pytest.raises(ConfigError):
            session.generate(max_new_tokens=count)
    with pytest.raises(UnknownSkillError):
        session.generate("nobody")
    event = threading.Event()
    event.set()
    assert session.generate(cancel=event).finish_reason == "cancelled"
    assert session.messages == [{"role": "user", "content": "Hello"}]
    assert session.generate(max_new_tokens=2).token_ids == made.generate("Hello", None, max_new_tokens=2).token_ids


def test_a_stream_of_a_single_call_can_switch() -> None:
    made = runtime()
    stream = made.stream("Hello", "always", max_new_tokens=6, speculate=False)
    next(stream)
    stream.switch("reply")
    "".join(stream)
    receipt = stream.generation.receipt
    assert [part["name"] for part in receipt["skills"]] == ["always"]
    (switch,) = receipt["switches"]
    assert [part["name"] for part in switch["skills"]] == ["reply"]
    assert 1 <= switch["after_tokens"] <= 6
    assert switch["seconds"] > 0
    with pytest.raises(UnknownSkillError):
        made.stream("Hello").switch("nobody")
