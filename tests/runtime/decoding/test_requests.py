"""Requests of a call: the skill's prompt and settings apply, and invalid calls are refused."""

from __future__ import annotations

from typing import Any

import pytest

from lime_edge.errors import LimeError
from lime_edge.runtime import Runtime
from lime_edge.runtime.decoding.sampling import Sampler
from lime_edge.skills.interface import Interface
from tests.support.runtime_models import exported, runtime

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def simple() -> Runtime:
    return runtime(exported(), "reply")


def test_skill_settings_apply_unless_the_call_says_otherwise() -> None:
    directory = exported()
    prompt = {
        "generation": {"max_new_tokens": 3, "temperature": 2.0, "repetition_penalty": 1.3},
        "stop": ["\0"],
    }
    made = runtime(directory, "reply", prompt=prompt, interface=Interface(system="Be brief."))
    answer = made.generate("Hello", "reply", seed=1)
    assert answer.timings.new_tokens == 3
    assert answer.timings.prompt_tokens == len(made._text.tokens(MESSAGES).ids)
    assert answer.token_ids == made.generate(MESSAGES, "reply", seed=1).token_ids
    assert answer.token_ids == made.generate("Hello", {"reply": 1.0}, seed=1).token_ids
    greedy = made.generate("Hello", "reply", temperature=0, repetition_penalty=1, max_new_tokens=5, stop=[])
    assert greedy.timings.new_tokens == 5
    assert greedy.token_ids != made.generate("Hello", "reply", temperature=0, max_new_tokens=5).token_ids
    raw = made.generate("Hello", "reply", raw=True, max_new_tokens=1)
    assert raw.timings.prompt_tokens == len(made._text.encode("Hello"))
    assert made.generate("Hello", None).timings.new_tokens > 3  # the base uses the defaults


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("generate", {"prompt": 5}, "the prompt is 5; expected text or a list of messages"),
    ("generate", {"prompt": []}, "there is no prompt"),
    ("generate", {"prompt": [{"role": "user"}]}, "message 0 has content None; expected text"),
    ("generate", {"prompt": [[{"role": "user", "content": "a"}, "b"]]}, "message 1 is str"),
    ("generate", {"prompt": "", "raw": True}, "the prompt is empty"),
    ("generate", {"prompt": MESSAGES, "raw": True}, "raw=True takes plain text"),
    ("generate", {"prompt": ["a", "b"], "skill": [None]}, "1 skills for 2 prompts"),
    ("generate", {"prompt": "a", "skill": []}, "0 skills"),
    ("generate", {"prompt": "a", "skill": "nope"}, "no skill named 'nope'; loaded skills: 'reply'. Call load_skill"),
    ("generate", {"prompt": "a", "skill": 3}, "skill is 3; expected None, a name, or weights by name"),
    ("generate", {"prompt": "a", "skill": {"reply": float("nan")}}, "weight of 'reply' is nan"),
    ("generate", {"prompt": "a", "skill": {}}, "weights by name"),
    ("generate", {"prompt": "a", "batch_size": 0}, "batch_size is 0"),
    ("generate", {"prompt": "a", "beams": 2}, "unknown setting 'beams'"),
    ("generate", {"prompt": "a", "top_p": 2}, "top_p is 2; expected a number from 0.001 to 1"),
    ("stream", {"prompt": ["a"]}, "stream takes one prompt"),
    ("stream", {"prompt": "a", "top_k": -1}, "top_k is -1"),
    ("choose", {"prompt": "a", "choices": "yes"}, "choices is 'yes'; expected a list of texts"),
    ("choose", {"prompt": "a", "choices": ["a", ""]}, "''; expected text"),
    ("choose", {"prompt": "a", "choices": ["a", "a"]}, "each choice only once"),
    ("choose", {"prompt": ["a", "b" * 400], "choices": ["c"]}, "row 1: 408 prompt tokens + 2 of the longest choice"),
    ("choose", {"prompt": "a", "choices": ["b" * 400]}, "401 of the longest choice; the context has 256"),
    ("choose", {"prompt": "a", "choices": ["b" * 10**6]}, "1,000,000 characters; the context of 256 tokens"),
    ("choose", {"prompt": "a", "choices": ["a", "\ud83d"]}, "lone surrogate"),
    (
        "generate",
        {"prompt": "hi \ud83d"},
        "message 0: 'content' has the lone surrogate '\\ud83d' at character 3",
    ),
    ("stream", {"prompt": "\ud83d", "raw": True}, "row 0: the prompt has the lone surrogate"),
    ("generate", {"prompt": ["a", [{"role": "human", "content": "b"}]]}, "row 1: message 0 has the role 'human'"),
    ("generate", {"prompt": "a", "stop": "b<|im_end|>"}, "contains the special token '<|im_end|>'"),
    ("generate", {"prompt": "a", "stop": ["\ud83d"]}, "stop string '\\ud83d' has the lone surrogate"),
    ("generate", {"prompt": 10**5000}, "the prompt is a whole number of 16610 bits"),
    ("generate", {"prompt": "a", "batch_size": -(10**5000)}, "batch_size is a whole number of"),
    ("generate", {"prompt": "a", "skill": {"reply": 10**400}}, "expected a finite number"),
    ("choose", {"prompt": "a", "choices": [10**5000]}, "a whole number of 16610 bits; expected text"),
]


@pytest.mark.parametrize(("method", "arguments", "message"), BAD)
def test_bad_calls(simple: Runtime, method: str, arguments: dict[str, Any], message: str) -> None:
    """A LimeError says what was found and expected, and no bank row stays pinned."""
    with pytest.raises(LimeError) as caught:
        getattr(simple, method)(**arguments)
    assert message in str(caught.value)
    assert simple._bank.in_use == 2


def test_every_row_is_named(simple: Runtime) -> None:
    prompts: list[Any] = ["a", "\ud83d", [{"role": "User", "content": "b"}, "c"], "d"]
    with pytest.raises(LimeError) as caught:
        simple.generate(prompts)
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["row 1", "row 2", "row 2"]


def test_a_special_token_as_a_stop_string_ends_the_answer(simple: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    for stop, reason, text in (("<|endoftext|>", "stop", "ab"), (None, "length", "abc"), ("b", "stop", "a")):
        drawn = iter([*simple._text.encode("ab"), 0, *simple._text.encode("c")])
        monkeypatch.setattr(Sampler, "__call__", lambda *_, drawn=drawn: next(drawn))
        found = simple.generate("Hello", stop=stop, max_new_tokens=4)
        assert (found.finish_reason, found.text) == (reason, text)
