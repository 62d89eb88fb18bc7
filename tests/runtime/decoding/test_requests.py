"""Requests of a call: the skill's prompt and settings apply, and invalid calls are refused."""

from __future__ import annotations

from typing import Any

import pytest

from lime_edge.errors import LimeError
from lime_edge.runtime import Runtime
from tests.support.runtime_models import exported, runtime

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def simple() -> Runtime:
    return runtime(exported(), "reply")


def test_skill_settings_apply_unless_the_call_says_otherwise() -> None:
    directory = exported()
    prompt = {
        "system": "Be brief.",
        "generation": {"max_new_tokens": 3, "temperature": 2.0, "repetition_penalty": 1.3},
        "stop": ["\0"],
    }
    made = runtime(directory, "reply", prompt=prompt)
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
    ("choose", {"prompt": "a", "choices": ["b" * 400]}, "the context has 256"),
]


@pytest.mark.parametrize(("method", "arguments", "message"), BAD)
def test_bad_calls(simple: Runtime, method: str, arguments: dict[str, Any], message: str) -> None:
    """A LimeError says what was found and expected, and no bank row stays pinned."""
    with pytest.raises(LimeError) as caught:
        getattr(simple, method)(**arguments)
    assert message in str(caught.value)
    assert simple._bank.in_use == 2
