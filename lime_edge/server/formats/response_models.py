"""What clients receive, in the form of OpenAI's API; `lime` holds what only this server tells."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field

T = TypeVar("T")
Given = Annotated[T | None, Field(exclude_if=lambda value: value is None)]  # left out where there is none
FinishReason = Literal["stop", "length", "tool_calls", "timeout", "cancelled"]


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorDetail


class CachedTokens(BaseModel):
    """How many prompt tokens were not read again."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens of all answers of a request; every prompt counts once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class AlternativeToken(BaseModel):
    """A token and its log-probability."""

    token: str
    logprob: float
    bytes: list[int]


class TokenDetails(AlternativeToken):
    """A token of an answer, and the likeliest ones in its place."""

    top_logprobs: list[AlternativeToken]


class ChatLogprobs(BaseModel):
    """Log-probabilities of the tokens of a message."""

    content: list[TokenDetails]


class CompletionLogprobs(BaseModel):
    """Log-probabilities of the tokens of a text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class FunctionCall(BaseModel):
    """The call of a function; the arguments are JSON."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    """One call in a message."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class ToolCallDelta(ToolCall):
    """One call in a stream."""

    index: int


class ChatMessage(BaseModel):
    """The answer of the assistant."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: Given[list[ToolCall]] = None


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason


class Completed(BaseModel):
    """What answers to a request have in common."""

    id: str
    created: int
    model: str
    system_fingerprint: str | None = None
    usage: Given[Usage] = None
    lime: Given[list[dict[str, Any]]] = None  # of every choice: index, receipt, its id, timings


class ChatCompletion(Completed):
    """The answer to POST /v1/chat/completions."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]


class ChatDelta(BaseModel):
    """What a chunk adds to a message."""

    role: Given[Literal["assistant"]] = None
    content: Given[str] = None
    tool_calls: Given[list[ToolCallDelta]] = None


class ChatChunkChoice(BaseModel):
    """What a chunk adds to one answer."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishReason | None = None


class ChatChunk(Completed):
    """One event of a stream."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChatChunkChoice]


class CompletionChoice(BaseModel):
    """One answer, or what an event of a stream adds to it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason | None = None


class Completion(Completed):
    """The answer to POST /v1/completions, or one event of its stream."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]


class ModelCard(BaseModel):
    """The base or a skill."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    parent: str | None = None  # of a skill: the base
    root: str  # sha256:DIGEST of the package, or of the backbone
    generation: int | None = None  # of a skill; grows when it is replaced
    max_model_len: int
    version: str | None = None
    description: str | None = None
    examples: list[str] | None = None


class ModelList(BaseModel):
    """The answer to GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
    diagnostics: list[str]  # why skills that were found are not there


class Tokenized(BaseModel):
    """The answer to POST /tokenize."""

    count: int
    max_model_len: int
    tokens: list[int]


class Health(BaseModel):
    """The answer to GET /health."""

    status: Literal["ok"] = "ok"
