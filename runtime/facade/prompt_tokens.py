"""What a runtime tells of prompts and tokens without running the model."""

from __future__ import annotations

from lime_edge.runtime.decoding.requests import encode_prompts
from lime_edge.runtime.types import ACTIVE, Active, Prompt, SkillSpec

from .call_rows import split_rows
from .loaded_skills import LoadedSkills


class PromptTokens(LoadedSkills):
    """The tokens of a runtime. Safe to use from several threads."""

    def tokenize(self, prompt: Prompt, skill: SkillSpec | Active = ACTIVE, *, raw: bool = False) -> tuple[int, ...]:
        """The tokens that `generate` would read for one prompt; ids from the vocabulary's size on are virtual tokens.

        A feature of a picture has the model's token for pictures.

        Raises:
            UnknownSkillError: The skill is not loaded.
            ConfigError: The prompt is invalid.
        """
        rows = split_rows([prompt], skill)
        with self._registry.lease(rows.skills) as lease:
            (tokens,) = encode_prompts(self._graph, self._text, rows.prompts, lease.applied, raw)
        return tuple(tokens.plain.tolist())

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for, which may be a part of a character; of special tokens, their name."""
        return self._text.token_bytes.of(token)

    @property
    def takes_tools(self) -> bool:
        """Whether the chat template writes tools, and asks for calls as `<tool_call>`."""
        return self._text.takes_tools
