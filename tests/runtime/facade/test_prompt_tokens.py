"""What a runtime tells of prompts without running the model."""

from __future__ import annotations

import pytest

from lime_edge.errors import ConfigError, UnknownSkillError
from lime_edge.skills.interface import Interface
from tests.support.runtime_models import exported, runtime


def test_tokenize_counts_what_generate_reads() -> None:
    made = runtime(exported(), "reply", interface=Interface(system="Be brief.", prefix="Say: "))
    messages = [{"role": "user", "content": "Hello"}]
    for prompt, skill, raw in (("Hello", "reply", False), ("Hello", None, False), ("Hello", None, True)):
        found = made.tokenize(prompt, skill, raw=raw)
        assert len(found) == made.generate(prompt, skill, raw=raw, max_new_tokens=1).timings.prompt_tokens
    counts = [len(made.tokenize(prompt, "reply")) for prompt in ("Hello", messages)]
    assert counts[0] > counts[1] > len(made.tokenize("Hello", raw=True))
    with pytest.raises(UnknownSkillError):
        made.tokenize("Hello", "other")
    with pytest.raises(ConfigError, match="the prompt is empty"):
        made.tokenize("", raw=True)


def test_tokens_are_bytes_and_tools_depend_on_the_template() -> None:
    made = runtime(exported())
    assert b"".join(map(made.token_bytes, made.tokenize("Hé", raw=True))) == "Hé".encode()
    assert not made.takes_tools
    with pytest.raises(ConfigError, match="knows no tools"):
        made.generate("Hello", tools=[{"type": "function"}])
    with pytest.raises(ConfigError, match=r"tools is 3; expected a list of objects"):
        made.generate("Hello", tools=3)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="no raw=True and no context"):
        made.generate("Hello", raw=True, tools=[{"type": "function"}])
