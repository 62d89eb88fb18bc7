"""Plain data types that the runtime returns: answers, choices and facts about loaded skills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from lime_edge.skills.package import Skill
from lime_edge.trust.policy import Signer


class Active(Enum):
    """Stands for "no skill was given": the active skill is used. (None is the base.)"""

    ACTIVE = "active"


ACTIVE = Active.ACTIVE

#: How a caller names a skill: None for the base, a name, or weights by name for a blend.
SkillSpec = str | Mapping[str, float] | None
SkillSpecs = list[SkillSpec] | list[str] | list[str | None]  # one for each row

Message = Mapping[str, Any]  # role and content
Prompt = str | Sequence[Message]  # text is a user message


@dataclass(frozen=True)
class SkillInfo:
    """One loaded skill."""

    name: str  # the name it was loaded under
    generation: int  # unique within this runtime; grows with every load
    version: str
    digest: str  # SHA-256 of the package
    activation: str  # "always" or "response"
    description: str
    license: str
    author: str
    size: int  # bytes of the package
    path: Path
    proved: bool  # its golden prompts reproduced on this graph
    signer: Signer | None = None  # the signer that the trust policy accepted

    @classmethod
    def of(cls, skill: Skill, name: str, proved: bool, signer: Signer | None = None) -> SkillInfo:
        """The facts that a package holds; the generation is 0 until it is loaded."""
        manifest = skill.manifest
        return cls(
            name=name,
            generation=0,
            version=manifest.version,
            digest=manifest.digest,
            activation=manifest.activation,
            description=manifest.description,
            license=manifest.license,
            author=manifest.author,
            size=skill.size,
            path=skill.path,
            proved=proved,
            signer=signer,
        )


@dataclass(frozen=True)
class Timings:
    """Time spent on one answer. The rows of a batch run together, so their times overlap."""

    prefill_seconds: float  # until the row's first token, or until it was stopped before it
    decode_seconds: float  # from the first token to the last
    prompt_tokens: int
    reused_tokens: int  # prompt tokens copied from another row or an earlier prompt
    new_tokens: int
    drafted_tokens: int = 0  # proposed without running the model for each
    accepted_tokens: int = 0  # drafted tokens that became part of the answer

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed; 0 if only one token was produced."""
        return (self.new_tokens - 1) / self.decode_seconds if self.decode_seconds > 0 else 0.0


class TokenLogprob(NamedTuple):
    """How likely a token of an answer was, by the model alone: before penalties, temperature and constraints."""

    token_id: int
    logprob: float  # natural logarithm of its probability
    top: tuple[tuple[int, float], ...]  # the likeliest tokens and their logprobs, the likeliest first


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        text: Without end-of-turn tokens, cut before the stop string; an incomplete last character is left out.
        token_ids: All tokens produced, including the end-of-turn token.
        finish_reason: ``"stop"`` (end of turn or a stop string), ``"length"``, ``"cancelled"`` or ``"timeout"``; the
            last two with what had been produced, which may be nothing.
        timings: Seconds and tokens.
        receipt: Which skills, backbone, adapter and graph produced it, by digest.
        logprobs: One per token; None unless they were asked for.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    timings: Timings
    receipt: Mapping[str, Any] = field(repr=False)
    logprobs: tuple[TokenLogprob, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Route:
    """The skill that was chosen for a request, and why.

    Attributes:
        skill: A name, a blend of skills that are about as likely, or None: nothing fits, so the base answers.
        probabilities: Of every loaded skill that can be chosen, likeliest first.
        none: The probability that the request is for none of them; all sum to 1.
        why: One sentence.
        read_seconds: Time to read the request as the base. The base, and skills that apply to answers alone, go on from
            there; any other skill reads the request again.
        choose_seconds: Time for the choice itself.
    """

    skill: SkillSpec
    probabilities: Mapping[str, float]
    none: float
    why: str
    read_seconds: float
    choose_seconds: float


@dataclass(frozen=True)
class Choice:
    """The likeliest of several given answers.

    Attributes:
        label: The choice with the highest score.
        probabilities: Sum to 1 over the choices; empty with ``best_only``.
        scores: log P(choice + end of turn | prompt) of every choice that was scored.
        receipt: As in `Generation`.
    """

    label: str
    probabilities: Mapping[str, float]
    scores: Mapping[str, float]
    receipt: Mapping[str, Any] = field(repr=False)
