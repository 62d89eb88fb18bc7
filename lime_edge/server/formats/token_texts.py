"""Log-probabilities of tokens in the forms of OpenAI's API."""

from __future__ import annotations

from collections.abc import Sequence

from lime_edge.runtime import Runtime, TokenLogprob

from .response_models import AlternativeToken, ChatLogprobs, CompletionLogprobs, TokenDetails

_LOWEST = -9999.0  # JSON has no infinity


def chat_logprobs(runtime: Runtime, logprobs: Sequence[TokenLogprob]) -> ChatLogprobs:
    """Of a chat completion."""
    return ChatLogprobs(content=[_details(runtime, one) for one in logprobs])


def completion_logprobs(runtime: Runtime, logprobs: Sequence[TokenLogprob], offset: int = 0) -> CompletionLogprobs:
    """Of a text completion.

    Args:
        runtime: The model, for the texts of its tokens.
        logprobs: One per token.
        offset: Characters of the text before them.
    """
    offsets, texts = [], [_text(runtime.token_bytes(one.token_id)) for one in logprobs]
    for text in texts:
        offsets.append(offset)
        offset += len(text)
    return CompletionLogprobs(
        tokens=texts,
        token_logprobs=[_finite(one.logprob) for one in logprobs],
        top_logprobs=[{_text(runtime.token_bytes(i)): _finite(value) for i, value in one.top} for one in logprobs],
        text_offset=offsets,
    )


def _details(runtime: Runtime, one: TokenLogprob) -> TokenDetails:
    own = _alternative(runtime, one.token_id, one.logprob)
    top = [_alternative(runtime, token, value) for token, value in one.top]
    return TokenDetails(token=own.token, logprob=own.logprob, bytes=own.bytes, top_logprobs=top)


def _alternative(runtime: Runtime, token: int, logprob: float) -> AlternativeToken:
    data = runtime.token_bytes(token)
    return AlternativeToken(token=_text(data), logprob=_finite(logprob), bytes=list(data))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _finite(logprob: float) -> float:
    return max(logprob, _LOWEST)
