"""Load an exported model, switch between skills by number, and answer prompts.

This is the facade. It guarantees three things: only LimeError escapes; after a failure the skills that were
loaded before keep working unchanged; the `skill=` of one call never affects another call. It runs without torch,
transformers, peft and onnx.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Unpack, overload

from lime_edge.contract.model import ModelContract
from lime_edge.contract.vector_kinds import Kind
from lime_edge.errors import ConfigError
from lime_edge.runtime.constraints.answer_constraints import AnswerConstraints
from lime_edge.runtime.decoding.control import Control
from lime_edge.runtime.decoding.generation_options import Event, Settings
from lime_edge.runtime.decoding.loop import Answer, run, until_stopped
from lime_edge.runtime.decoding.requests import encode_prompts, open_requests
from lime_edge.runtime.decoding.results import to_choice, to_generation
from lime_edge.runtime.decoding.scoring import encode_choices, score_prompts
from lime_edge.runtime.decoding.stream import Stream
from lime_edge.runtime.model.directory import read_directory
from lime_edge.runtime.model.session import Graph, SessionSettings
from lime_edge.runtime.native.operators import AUTO, Operators
from lime_edge.runtime.skills.bank import Bank
from lime_edge.runtime.skills.registry import LoadConditions, Registry, check_limits
from lime_edge.runtime.text.prompts import Text
from lime_edge.skills.compatibility import LIMITS
from lime_edge.trust.policy import TrustPolicy, as_policy

from .call_rows import split_rows, whole_batch_size
from .skill_loading import SkillLoader
from .types import ACTIVE, Active, Choice, Generation, Prompt, SkillInfo, SkillSpec, SkillSpecs

BATCH_SIZE = 8  # default number of rows that run together


class Runtime:
    """An exported model and the skills loaded into it. Safe to use from several threads.

    Create it with `Runtime.load`.
    """

    def __init__(
        self, graph: Graph, text: Text, limits: Mapping[Kind, float], trust: TrustPolicy | None = None
    ) -> None:
        self._graph, self._text, self._trust = graph, text, trust
        limits, table = {**LIMITS, **limits}, graph.directory.contract.table
        self._bank = Bank(table.row_size, graph.bank_dtype)
        self._constraints = AnswerConstraints(text, graph.vocabulary)
        self._skills = Registry(self._bank, table, limits)
        self._loader = SkillLoader(graph, text, self._bank, self._skills, limits, trust)

    @classmethod
    def load(
        cls,
        directory: str | os.PathLike[str],
        device: str = "auto",
        threads: int | None = None,
        max_value: Mapping[Kind, float] | None = None,
        verify: bool = False,
        spin: int | None = None,
        operators: str | os.PathLike[str] | None = "auto",
        mapped: str | os.PathLike[str] | None = None,
        trust: TrustPolicy | str | os.PathLike[str] | None = None,
    ) -> Runtime:
        """Open a model directory written by `lime-edge export`.

        Args:
            directory: Contains lime.json, model.onnx, genai_config.json and the tokenizer's files.
            device: ``"cpu"``, ``"cuda"``, or ``"auto"``: CUDA if onnxruntime supports it. The CUDA path has not been
                run on a GPU.
            threads: Threads of ONNX Runtime. None: one per physical core that this process may use (on Linux, its
                CPU affinity and its container's quota count).
            max_value: The largest |value| that a skill or blend may hold, by kind of vector. Overrides
                `lime_edge.skills.compatibility.LIMITS`.
            verify: Hash the weights too (the graph is always hashed), and the mapped copy, which is made anew if it was
                damaged.
            spin: Microseconds that an idle thread busy-waits before it sleeps. None: 20 with onnxruntime 1.26 or
                later, enough for the pauses within a token; otherwise 0. With 2 threads, 20 is a fifth faster than 0
                on an idle machine and about a fifth slower on a busy one.
            operators: ``"auto"``: the native LiME operators if they were installed with this package and support
                the device, otherwise the functions in the graph. None: the functions. A path: that library. No
                library is ever loaded from `directory`. `Runtime.operators` reports the choice.
            mapped: A folder for a copy of the model in this processor's memory layout. The first start creates it
                (twice the model's size on disk); later starts trust it, take less time and use two fifths of the
                private memory. It is rebuilt when the model, onnxruntime or the processor changes.
            trust: A policy, or the path of its file, that every skill must satisfy (docs/trust.md): accepted
                signers, skills and versions. None: every valid package that fits is accepted.

        Raises:
            ModelError: Names every missing or changed file, or what the graph lacks.
            DeviceError: The device is not available; the message lists those that are. All other methods raise it in
                a forked child (docs/install.md).
            ConfigError: An argument is out of range, or the named library cannot be used.
            PolicyError: Names every fault of the trust policy.
        """
        copy = None if mapped is None else Path(mapped).absolute()
        settings = SessionSettings(device, threads, spin, _library(operators), copy, verify)
        check_limits(max_value or {})
        policy = as_policy(trust)
        found = read_directory(Path(directory), verify)
        with ThreadPoolExecutor(1) as pool:
            # Half as long as the session: load both at once.
            text = pool.submit(Text, found.path, found.eos_ids, found.context_length)
            return cls(Graph(found, settings), text.result(), max_value or {}, policy)

    @property
    def _registry(self) -> Registry:
        """The loaded skills: every call that answers, loads or switches begins with them."""
        self._graph.refuse_fork()
        return self._skills

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        return self._graph.device

    @property
    def operators(self) -> Operators:
        """What runs the LiME operators and, if that is not the native library, why."""
        return self._graph.operators

    @property
    def contract(self) -> ModelContract:
        """The model's lime.json."""
        return self._graph.directory.contract

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of prompt and answer together."""
        return self._graph.directory.context_length

    # -- skills ------------------------------------------------------------------------------------

    def load_skill(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        prove: bool = False,
        replace: bool = False,
        allow_downgrade: bool = False,
        expected_generation: int | None = None,
    ) -> SkillInfo:
        """Load a skill package without disturbing running requests.

        The package is read, checked and proved first, then switched in atomically: a request sees either the old
        generation or the new one. A failure at any step changes nothing.

        Args:
            path: The .lime file.
            name: The name to load it under; None: the package's own name.
            prove: Run its golden prompts on this graph first.
            replace: Replace the skill of that name, even if it is active or part of the active blend. Requests in
                flight finish with the old one.
            allow_downgrade: With a trust policy, let `replace` also go back to an older version.
            expected_generation: Load only if the skill of that name has this generation (`SkillInfo.generation`; 0:
                the name is not loaded). None: any.

        Raises:
            SkillTrustError: The trust policy refuses it, or its signature is invalid.
            SkillVersionError: With a trust policy: it is older than the skill it would replace.
            SkillFormatError: The file is not a valid package.
            SkillMismatchError: It was made for another backbone, adapter or routing, or exceeds the limits.
            SkillProofError: Its golden prompts do not reproduce.
            SkillConflictError: The loaded generation is not the expected one.
            SkillError: There is not enough memory.
            ConfigError: The name is invalid or already loaded, or the active blend cannot use the new skill.
        """
        self._graph.refuse_fork()
        no_downgrade = self._trust is not None and not allow_downgrade
        return self._loader.load(path, name, prove, LoadConditions(replace, expected_generation, no_downgrade))

    def use_skill(self, skill: SkillSpec) -> None:
        """Make a skill the default for calls without ``skill=``; takes microseconds.

        Args:
            skill: A name, a blend as weights by name, or None for the base.

        Raises:
            UnknownSkillError: The skill is not loaded; the message names the loaded ones.
            ConfigError: The blend is invalid.
        """
        self._registry.activate(skill)

    @property
    def active_skill(self) -> SkillSpec:
        """The skill of calls without ``skill=`` in this thread or asyncio task; None is the base."""
        return self._registry.active

    def disable_skill(self) -> AbstractContextManager[None]:
        """In this context, calls of this thread or asyncio task without ``skill=`` use the base."""
        return self._registry.disabled()

    def skills(self) -> list[SkillInfo]:
        """The loaded skills, in loading order."""
        return self._registry.infos()

    def unload_skill(self, name: str, expected_generation: int | None = None) -> None:
        """Unload a skill; requests in flight finish with it.

        Args:
            name: Name of the skill.
            expected_generation: Unload only this generation. None: any.

        Raises:
            UnknownSkillError: The skill is not loaded; the message names the loaded ones.
            SkillConflictError: The loaded generation is not the expected one.
            ConfigError: The skill is active.
        """
        self._registry.remove(name, expected_generation)

    # -- answers -----------------------------------------------------------------------------------

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is a sequence of str, too
        self,
        prompt: Prompt,
        skill: SkillSpec | Active = ACTIVE,
        *,
        raw: bool = False,
        batch_size: int = BATCH_SIZE,
        **settings: Unpack[Settings],
    ) -> Generation: ...
    @overload
    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        skill: SkillSpec | SkillSpecs | Active = ACTIVE,
        *,
        raw: bool = False,
        batch_size: int = BATCH_SIZE,
        **settings: Unpack[Settings],
    ) -> list[Generation]: ...
    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        skill: SkillSpec | SkillSpecs | Active = ACTIVE,
        *,
        raw: bool = False,
        batch_size: int = BATCH_SIZE,
        **settings: Unpack[Settings],
    ) -> Generation | list[Generation]:
        """Answer one prompt or several.

        Args:
            prompt: A request as text, a list of messages, or a list of either. A request goes through the skill's
                interface: prefix and suffix around it, the form of the answers. Messages do not; if they end with one
                of the assistant's, the answer continues that text.
            skill: For this call only: a name, a blend, None for the base, or a list with one for each row (one
                prompt with a list of skills is answered once with each). Default: the active skill.
            raw: Take the prompt as it is, without the chat template and the skill's interface. Special tokens that
                it spells are special: never pass text of others with it. Without `raw`, all given text is data.
            batch_size: Maximum number of rows that run together; a row's answer does not depend on it.
            **settings: max_new_tokens, temperature (0 is greedy), top_k, top_p, repetition_penalty, seed and stop,
                for all rows. Missing settings come from the skill, then from the defaults: greedy, at most 256
                tokens. The same seed gives the same answer, alone and in any batch; so rows with the same prompt,
                skill and seed have the same answer. `cancel` (a threading.Event, or anything with is_set()) and
                `timeout` (seconds from the call on) stop all rows after the current token or chunk of a prompt.
                `answers` says what an answer must be: a list of choices, a JSON schema as a dict, or an `AnswerSpec`;
                if it does not fit into max_new_tokens, the finish reason is ``"length"``. `speculate=False` drafts no
                tokens.

        Returns:
            One Generation, or a list if `prompt` or `skill` is a list. The finish reason of rows that were stopped is
            ``"cancelled"`` or ``"timeout"``; they have the text until then, which may be none.

        Raises:
            UnknownSkillError: A skill is not loaded.
            ConfigError: Names every invalid setting and prompt.
        """
        rows = split_rows(prompt, skill)
        batch_size = whole_batch_size(batch_size)
        control = Control.of(settings)
        with self._registry.lease(rows.skills) as lease:
            answers = open_requests(
                self._graph, self._text, self._constraints, rows.prompts, lease.applied, raw, settings
            )
            for start in range(0, len(answers), batch_size):
                batch = answers[start : start + batch_size]
                for _ in until_stopped(run(self._graph, lease.array, batch), batch, control):
                    pass
        generations = [self._generation(answer) for answer in answers]
        return generations[0] if rows.single else generations

    def stream(
        self,
        prompt: Prompt,
        skill: SkillSpec | Active = ACTIVE,
        *,
        raw: bool = False,
        **settings: Unpack[Settings],
    ) -> Stream:
        """Answer one prompt piece by piece; arguments and errors as in `generate`.

        Returns:
            An iterator over pieces of text. After the last piece, its `generation` holds the complete result.
        """
        rows = split_rows(prompt, skill)
        if not rows.single:
            raise ConfigError("stream takes one prompt and one skill; generate takes lists")
        control = Control.of(settings)
        lease = self._registry.lease(rows.skills)
        try:
            answers = open_requests(
                self._graph, self._text, self._constraints, rows.prompts, lease.applied, raw, settings
            )
            return Stream(self._graph, lease, answers[0], control, self._generation)
        except BaseException:
            lease.release()
            raise

    @overload
    def choose(  # type: ignore[overload-overlap]
        self,
        prompt: Prompt,
        choices: Sequence[str],
        skill: SkillSpec | Active = ACTIVE,
        *,
        best_only: bool = False,
        raw: bool = False,
        cancel: Event | None = None,
        timeout: float | None = None,
    ) -> Choice: ...
    @overload
    def choose(
        self,
        prompt: Prompt | Sequence[Prompt],
        choices: Sequence[str],
        skill: SkillSpec | SkillSpecs | Active = ACTIVE,
        *,
        best_only: bool = False,
        raw: bool = False,
        cancel: Event | None = None,
        timeout: float | None = None,
    ) -> list[Choice]: ...
    def choose(
        self,
        prompt: Prompt | Sequence[Prompt],
        choices: Sequence[str],
        skill: SkillSpec | SkillSpecs | Active = ACTIVE,
        *,
        best_only: bool = False,
        raw: bool = False,
        cancel: Event | None = None,
        timeout: float | None = None,
    ) -> Choice | list[Choice]:
        """Pick the likeliest of several given answers, by log P(choice + end of turn | prompt).

        Args:
            prompt, skill, raw: As in `generate`. A common beginning of consecutive prompts runs once.
            choices: The possible answers, as texts.
            best_only: Skip choices that cannot win; the label stays the same.
            cancel, timeout: As in `generate`.

        Returns:
            One Choice, or a list if `prompt` or `skill` is a list.

        Raises:
            UnknownSkillError: A skill is not loaded.
            ConfigError: Prompts or choices are invalid, or do not fit into the context.
            StoppedError: Cancelled, or the time was over, before every choice was scored.
        """
        control = Control.of({"cancel": cancel, "timeout": timeout})
        rows, encoded = split_rows(prompt, skill), encode_choices(choices, self._text)
        with self._registry.lease(rows.skills) as lease:
            tokens = encode_prompts(self._graph, self._text, rows.prompts, lease.applied, raw)
            prompts = list(zip(tokens, lease.applied, strict=True))
            scores = list(score_prompts(self._graph, lease.array, prompts, encoded, best_only, control))
        chosen = [
            to_choice(row, applied, self.contract, best_only)
            for row, applied in zip(scores, lease.applied, strict=True)
        ]
        return chosen[0] if rows.single else chosen

    def _generation(self, answer: Answer) -> Generation:
        return to_generation(answer, self.contract)


def _library(operators: str | os.PathLike[str] | None) -> Path | Literal["auto"] | None:
    return AUTO if operators == AUTO else None if operators is None else Path(operators)
