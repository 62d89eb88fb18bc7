"""Log-probabilities in JSON."""

from __future__ import annotations

import math

from lime_edge.runtime import TokenLogprob
from lime_edge.server.formats.token_texts import chat_logprobs, completion_logprobs
from tests.server.served import shared


def test_texts_bytes_and_offsets() -> None:
    made = shared()
    ids = made.tokenize("Hé!", raw=True)
    one = [TokenLogprob(token, -0.5, ((token, -0.5), (5, -math.inf))) for token in ids]
    found = chat_logprobs(made, one).content
    assert bytes(byte for token in found for byte in token.bytes) == "Hé!".encode()
    assert found[0].token == "H"
    assert found[0].top_logprobs[1].logprob == -9999.0
    text = completion_logprobs(made, one, offset=10)
    assert text.text_offset[:2] == [10, 11]
    assert text.token_logprobs == [-0.5] * len(ids)
    assert text.top_logprobs[0]["H"] == -0.5
