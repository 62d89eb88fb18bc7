"""What is written: null where OpenAI writes null, nothing where it writes nothing."""

from __future__ import annotations

import json

from lime_edge.server.formats.response_models import ChatChunk, ChatChunkChoice, ChatDelta, ChatMessage, Completion


def test_a_chunk() -> None:
    choice = ChatChunkChoice(index=0, delta=ChatDelta(content="x"))
    chunk = json.loads(ChatChunk(id="i", created=1, model="m", choices=[choice]).model_dump_json())
    assert chunk == {
        "id": "i",
        "created": 1,
        "model": "m",
        "object": "chat.completion.chunk",
        "system_fingerprint": None,
        "choices": [{"index": 0, "delta": {"content": "x"}, "logprobs": None, "finish_reason": None}],
    }


def test_a_message_without_calls_has_no_calls() -> None:
    assert ChatMessage(content="x").model_dump() == {"role": "assistant", "content": "x", "refusal": None}


def test_no_usage_and_no_facts_unless_there_are_any() -> None:
    assert not {"usage", "lime"} & Completion(id="i", created=1, model="m", choices=[]).model_dump().keys()
