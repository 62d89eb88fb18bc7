"""What clients send: bodies of OpenAI's API, with the additions of vLLM that clients know.

Ranges are those of the runtime. Unknown fields pass: the server warns of them in a header and in its log.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lime_edge.errors import ConfigError
from lime_edge.runtime import AnswerSpec

Text = Annotated[str, Field(max_length=2**24)]
Name = Annotated[str, Field(min_length=1, max_length=256)]


class Body(BaseModel):
    """The base of all bodies: numbers are numbers (no text that looks like one), and finite."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    @property
    def unknown(self) -> list[str]:
        """Names of the fields that mean nothing here."""
        return sorted(self.model_extra or {})


class StreamOptions(Body):
    """Of a stream."""

    include_usage: bool = False


class JsonSchema(Body):
    """A JSON schema and its name."""

    name: Text = ""
    description: Text | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class ResponseFormat(Body):
    """What the text of an answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    def answers(self) -> AnswerSpec:
        """The same for the runtime.

        Raises:
            ConfigError: The schema is missing, or names every fault of it.
        """
        if self.type == "text":
            return AnswerSpec("text")
        if self.type == "json_object":
            return AnswerSpec("schema", {"type": "object"})
        if self.json_schema is None:
            raise ConfigError("response_format.json_schema is missing; expected {name, schema}")
        return AnswerSpec("schema", self.json_schema.schema_)


class Sampling(Body):
    """The fields that completions and chat completions share. Missing ones come from the skill, then the defaults."""

    model: Name
    max_tokens: Annotated[int, Field(ge=1, le=2**20)] | None = None
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**20)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(max_length=16)] | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.1, le=10)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    user: Annotated[str, Field(max_length=256)] | None = None
    priority: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = None

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, value: Any) -> Any:
        if isinstance(value, list) and not all(value):
            raise ValueError("a stop string is empty; expected text")
        return value

    @property
    def usage_chunk(self) -> bool:
        """Whether a stream ends with a chunk that has the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def settings(self) -> dict[str, Any]:
        """Settings of the runtime, without `logprobs`.

        Raises:
            ConfigError: The response format names every fault.
        """
        return {
            "max_new_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": None if self.top_p is None else max(self.top_p, 1e-3),
            "top_k": None if self.top_k is None else max(self.top_k, 0),
            "seed": None if self.seed is None else self.seed % 2**63,
            "stop": self.stop or None,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "repetition_penalty": self.repetition_penalty,
            "answers": None if self.response_format is None else self.response_format.answers(),
        }


class Function(Body):
    """A function that an answer may call."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    """A tool: a function."""

    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    """The function that must be called."""

    name: Text


class NamedTool(Body):
    """The tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class ChatRequest(Sampling):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=4096)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**20)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None

    def settings(self) -> dict[str, Any]:
        """As in `Sampling`, with `logprobs`."""
        found = super().settings()
        if self.max_completion_tokens is not None:
            found["max_new_tokens"] = self.max_completion_tokens
        if self.logprobs:
            found["logprobs"] = self.top_logprobs or 0
        return found


class CompletionRequest(Sampling):
    """The body of POST /v1/completions: text as it is, without chat template and interface."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=256)]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None
    suffix: str | None = None

    def settings(self) -> dict[str, Any]:
        """As in `Sampling`, with `logprobs`."""
        return {**super().settings(), "logprobs": self.logprobs}


class TokenizeRequest(Body):
    """The body of POST /tokenize: a prompt as it is, or messages."""

    model: Name
    prompt: Text | None = None
    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=4096)] | None = None


class LoadAdapterRequest(Body):
    """The body of POST /v1/load_lora_adapter."""

    lora_name: Annotated[str, Field(min_length=1, max_length=64)]
    lora_path: Annotated[str, Field(min_length=1, max_length=4096)]


class UnloadAdapterRequest(Body):
    """The body of POST /v1/unload_lora_adapter."""

    lora_name: Name
