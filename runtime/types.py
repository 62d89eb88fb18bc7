"""What the runtime hands back: answers, choices and what is known of a loaded skill. Plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from lime_edge.skills.package import Skill
from lime_edge.trust.policy import Signer


class Active(Enum):
    """Stands for "no skill was named": the active one is used. (None is the base.)"""

    ACTIVE = "active"


ACTIVE = Active.ACTIVE

#: What may be asked for as a skill: None is the base, a name, or weights by name for a blend.
SkillSpec = str | Mapping[str, float] | None
SkillSpecs = list[SkillSpec] | list[str] | list[str | None]  # one for every row

Message = Mapping[str, Any]  # role and content
Prompt = str | Sequence[Message]  # text is a user message


@dataclass(frozen=True)
class SkillInfo:
    """One loaded skill."""

    name: str  # the name it was loaded under
    generation: int  # grows with every load into this runtime and is never used again
    version: str
    digest: str  # SHA-256 of the package
    activation: str  # "always" or "response"
    description: str
    license: str
    author: str
    size: int  # bytes of the package
    path: Path
    proved: bool  # its golden prompts were reproduced on this graph
    signer: Signer | None = None  # whose signature the trust policy took

    @classmethod
    def of(cls, skill: Skill, name: str, proved: bool, signer: Signer | None = None) -> SkillInfo:
        """What a package says; its generation is 0 until it is loaded."""
        said = skill.manifest
        return cls(
            name=name,
            generation=0,
            version=said.version,
            digest=said.digest,
            activation=said.activation,
            description=said.description,
            license=said.license,
            author=said.author,
            size=skill.size,
            path=skill.path,
            proved=proved,
            signer=signer,
        )


@dataclass(frozen=True)
class Timings:
    """Where the time of one answer went. In a batch, rows share the machine and so the clock."""

    prefill_seconds: float  # until the first token of the row
    decode_seconds: float  # from the first token to the last
    prompt_tokens: int
    reused_tokens: int  # of the prompt, taken exactly from another row or an earlier prompt
    new_tokens: int

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed; 0 where there was only the first token."""
        return (self.new_tokens - 1) / self.decode_seconds if self.decode_seconds > 0 else 0.0


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        text: Without end-of-turn tokens, cut before the stop string; bytes of an unfinished last
            character are left out.
        token_ids: Every token that was produced, the end-of-turn token included.
        finish_reason: ``"stop"`` (end of turn or a stop string) or ``"length"``.
        timings: Seconds and tokens.
        receipt: Which skill, backbone, adapter and graph made it, by digest.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    timings: Timings
    receipt: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Choice:
    """The likeliest of a few answers.

    Attributes:
        label: The choice with the highest score.
        probabilities: Over the choices, summing to 1; empty with ``best_only``.
        scores: log P(choice + end of turn | prompt) of every choice that was scored.
        receipt: As in `Generation`.
    """

    label: str
    probabilities: Mapping[str, float]
    scores: Mapping[str, float]
    receipt: Mapping[str, Any] = field(repr=False)
