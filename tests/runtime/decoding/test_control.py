"""When a request stops: cancelled by anybody, or at its deadline; and what a caller gets then."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from lime_edge.errors import ConfigError, StoppedError
from lime_edge.runtime import Runtime
from lime_edge.runtime.decoding import control as control_module
from lime_edge.runtime.decoding import kv_cache
from lime_edge.runtime.decoding.control import Control
from tests.support.runtime_models import PROMPTS, exported, makers, skill

LONG = "a long prompt " * 12  # several chunks of 32 tokens


class After:
    """An event that is set from the nth time on that it is asked."""

    def __init__(self, count: int) -> None:
        self.asked, self._count = 0, count

    def is_set(self) -> bool:
        self.asked += 1
        return self.asked > self._count


class Clock:
    """Seconds pass only when somebody looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture(scope="module")
def made() -> Runtime:
    found = Runtime.load(exported(), threads=1, prefix_cache=0)  # the tests count chunks that are read
    found.load_skill(skill(exported(), "reply"))
    found._text.eos_ids = frozenset()  # answers end by length alone
    return found


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache, "CHUNK", 32)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(control_module, "time", found)
    return found


def test_reasons(clock: Clock) -> None:
    assert Control().reason == ""
    timed = Control(timeout=3)
    assert [timed.reason for _ in range(4)] == ["", "", "timeout", "timeout"]
    timed.cancel()
    assert timed.reason == "cancelled"
    event = threading.Event()
    watched = Control(event)
    assert watched.reason == ""
    event.set()
    assert watched.reason == "cancelled"
    with pytest.raises(StoppedError, match="took longer than its timeout of 0 s") as caught:
        Control(timeout=0).check()
    assert caught.value.reason == "timeout"


def test_a_prompt_is_stopped_between_two_chunks(made: Runtime, small_chunks: None) -> None:
    """A row that never got a token: no text, the right reason, sensible times."""
    chunks = -(-len(made._text.tokens(LONG).ids) // 32)
    assert chunks > 3
    event = After(2)
    found = made.generate(LONG, cancel=event)
    assert (found.text, found.token_ids, found.finish_reason) == ("", (), "cancelled")
    assert event.asked == 3
    assert found.timings.prefill_seconds > 0
    assert (found.timings.decode_seconds, found.timings.tokens_per_second, found.timings.new_tokens) == (0, 0, 0)


def test_an_answer_is_stopped_between_two_tokens(made: Runtime) -> None:
    whole = made.generate("Hello", max_new_tokens=100)
    for count in range(2, 8):
        found = made.generate("Hello", max_new_tokens=100, cancel=After(count), speculate=False)
        assert found.finish_reason == "cancelled"
        assert count - 1 <= len(found.token_ids) < 100  # one checkpoint is that of the prompt
        assert found.token_ids == whole.token_ids[: len(found.token_ids)]
        assert whole.text.startswith(found.text)
    assert made.generate("Hello", max_new_tokens=100, cancel=After(10**6)).text == whole.text
    assert made._bank.in_use == 2


def test_a_timeout(made: Runtime, clock: Clock) -> None:
    whole = made.generate("Hello", max_new_tokens=100)
    found = made.generate("Hello", max_new_tokens=100, timeout=6)
    assert found.finish_reason == "timeout"
    assert 0 < len(found.token_ids) < 100
    assert found.token_ids == whole.token_ids[: len(found.token_ids)]
    assert made.generate("Hello", timeout=0).finish_reason == "timeout"
    assert made.generate("Hello", max_new_tokens=3, timeout=10**9).finish_reason == "length"


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("count", [0, 1, 3, 6, 11, 17])
def test_all_rows_of_a_call_end_with_what_they_have(made: Runtime, count: int, batch_size: int) -> None:
    skills: Any = ["reply", None, "reply", None]
    wholes = made.generate(PROMPTS, skills, max_new_tokens=6)
    found = made.generate(PROMPTS, skills, max_new_tokens=6, cancel=After(count), batch_size=batch_size)
    assert [len(row.token_ids) < 6 for row in found] == [row.finish_reason == "cancelled" for row in found]
    for row, whole in zip(found, wholes, strict=True):
        assert row.token_ids == whole.token_ids[: len(row.token_ids)]
        assert makers(row.receipt) == makers(whole.receipt)
        assert row.timings.prefill_seconds >= 0
        assert row.timings.decode_seconds >= 0
    assert count or not any(row.token_ids or row.text for row in found)


def test_text_that_could_have_become_a_stop_string_is_not_lost(made: Runtime) -> None:
    whole = made.generate(PROMPTS[1], "reply", max_new_tokens=100).text
    stop = whole + "\0"  # holds back all of the text so far
    found = made.generate(PROMPTS[1], "reply", max_new_tokens=100, stop=stop, cancel=After(9))
    assert found.text
    assert whole.startswith(found.text)
    stream = made.stream(PROMPTS[1], "reply", max_new_tokens=100, stop=stop, cancel=After(9))
    assert "".join(stream) == stream.generation.text == found.text
    assert stream.generation.finish_reason == "cancelled"


@pytest.mark.parametrize("count", range(5))
def test_choices_are_all_scored_or_none(made: Runtime, small_chunks: None, count: int) -> None:
    choices = ["yes", "no"]
    with pytest.raises(StoppedError, match="the request was cancelled before it had a result") as caught:
        made.choose(LONG, choices, "reply", cancel=After(count))
    assert caught.value.reason == "cancelled"
    with pytest.raises(StoppedError, match="timeout of 0 s"):
        made.choose(LONG, choices, "reply", timeout=0)
    assert made.choose(LONG, choices, "reply", cancel=After(99), timeout=10**6) == made.choose(LONG, choices, "reply")
    assert made._bank.in_use == 2


def test_every_bad_setting_is_named_at_once(made: Runtime) -> None:
    calls: list[Any] = [made.generate, made.stream]
    for call in calls:
        with pytest.raises(ConfigError) as caught:
            call("Hello", top_p=7, timeout=-1, cancel=threading.Event)
        assert len(caught.value.faults) == 3
    bad: list[Any] = [-1, float("nan"), float("inf"), "1", True, 10**400]
    for timeout in bad:
        with pytest.raises(ConfigError, match=r"timeout is .*; expected a number from 0 to 1000000000"):
            made.choose("Hello", ["a", "b"], timeout=timeout)
    nothing: Any = 5
    with pytest.raises(ConfigError, match=r"cancel is 5; expected an object with is_set\(\)"):
        made.choose("Hello", ["a", "b"], cancel=nothing)
