"""Bodies of requests for property tests: nearly right, wrong, and no JSON at all."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

PATHS = ("/v1/chat/completions", "/v1/completions", "/tokenize", "/v1/load_lora_adapter", "/v1/unload_lora_adapter")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)

_number = st.integers(-3, 40) | st.floats(-3, 3) | st.sampled_from([10**30, -(2**63), 2**63, 1e308])
_text = st.text(max_size=20) | st.sampled_from(["<|im_end|>", "\ud800", "\0", "é中😀" * 3])
_part = st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url", "image"])}, optional={"text": _text})
_message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "system", "assistant", "tool", "developer", "nobody"])},
    optional={"content": _text | st.lists(_part, max_size=2) | JSON, "name": _text, "tool_calls": JSON},
)
_form = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "json_object", "json_schema", "other"])},
    optional={
        "json_schema": st.fixed_dictionaries(
            {}, optional={"name": _text, "schema": st.sampled_from([{"type": "object"}, {"enum": ["a"]}]) | JSON}
        )
    },
)
_tool = st.fixed_dictionaries(
    {"type": st.just("function")}, optional={"function": st.fixed_dictionaries({}, optional={"name": _text})}
)


def _fields(values: dict[str, st.SearchStrategy[Any]]) -> dict[str, st.SearchStrategy[Any]]:
    """Usually the right type, sometimes anything."""
    return {name: st.one_of(value, value, value, JSON) for name, value in values.items()}


BODIES: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["legal", "brief", "tiny", "tiny:legal", "auto", "nope", ""]) | JSON,
        # Answers are short: what is tested is what comes before.
        "max_tokens": st.integers(1, 3) | st.sampled_from([0, None, "1", 1.5]),
    },
    optional=_fields(
        {
            "messages": st.lists(_message, max_size=3),
            "prompt": _text | st.lists(_text, max_size=2),
            "temperature": _number,
            "top_p": _number,
            "top_k": _number,
            "seed": _number,
            "stop": _text | st.lists(_text, max_size=3),
            "n": st.integers(-1, 3),
            "logprobs": st.booleans() | st.integers(-1, 22),
            "top_logprobs": st.integers(-1, 22),
            "frequency_penalty": _number,
            "presence_penalty": _number,
            "repetition_penalty": _number,
            "response_format": _form,
            "tools": st.lists(_tool, max_size=2),
            "tool_choice": st.sampled_from(["none", "auto", "required"]),
            "stream": st.booleans(),
            "stream_options": st.fixed_dictionaries({}, optional={"include_usage": st.booleans()}),
            "user": _text,
            "priority": _number,
            "lora_name": _text,
            "lora_path": _text,
            "anything": JSON,
        }
    ),
)

RAW = st.binary(max_size=60) | st.text(alphabet='{}[]",:0e-.\\u d8truefalsnl', max_size=60).map(str.encode)
