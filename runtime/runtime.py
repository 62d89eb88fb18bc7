"""Load an exported model, switch between skills by number, and answer prompts.

This is the facade. It guarantees three things: only LimeError escapes; after a failure the skills that were
loaded before keep working unchanged; the `skill=` of one call never affects another call. It runs without torch,
transformers, peft and onnx.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Unpack, overload

from lime_edge.common.strict_json import show
from lime_edge.contract.model import ModelContract
from lime_edge.contract.vector_kinds import Kind
from lime_edge.errors import ConfigError
from lime_edge.runtime.decoding.contexts import Context, Opening, opening_of
from lime_edge.runtime.decoding.control import Control
from lime_edge.runtime.decoding.generation_options import Event, Settings
from lime_edge.runtime.decoding.prefix_cache import DEFAULT_BYTES, checked_limit
from lime_edge.runtime.decoding.requests import encode_prompts, read_opening
from lime_edge.runtime.decoding.results import to_choice
from lime_edge.runtime.decoding.scoring import encode_choices, score_prompts
from lime_edge.runtime.model.directory import read_directory
from lime_edge.runtime.model.picture_reader import open_reader
from lime_edge.runtime.model.pictures import DEFAULT_BYTES as PICTURE_BYTES
from lime_edge.runtime.model.pictures import checked_picture_cache
from lime_edge.runtime.model.session import Graph, SessionSettings
from lime_edge.runtime.native.operators import AUTO, Operators
from lime_edge.runtime.scheduling.scheduler import Scheduler
from lime_edge.runtime.scheduling.scheduler_settings import SchedulerSettings
from lime_edge.runtime.scheduling.stream import Stream
from lime_edge.runtime.scheduling.ticket import Ticket
from lime_edge.runtime.skills.registry import check_limits
from lime_edge.runtime.text.prompts import Text
from lime_edge.trust.policy import TrustPolicy, as_policy

from .facade.call_rows import one_row, split_rows, whole_batch_size
from .facade.comparisons import Comparisons, Shadow
from .facade.routed_skills import finisher, with_route
from .types import ACTIVE, Active, Choice, Generation, Prompt, SkillSpec, SkillSpecs

BATCH_SIZE = 8  # default number of rows that run together


class Runtime(Comparisons):
    """An exported model and the skills loaded into it. Safe to use from several threads.

    Create it with `Runtime.load`.
    """

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
        prefix_cache: int = DEFAULT_BYTES,
        picture_cache: int = PICTURE_BYTES,
        scheduler: SchedulerSettings | None = None,
        shadow: float = 0.0,
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
            prefix_cache: Bytes for what requests have read, which those that begin alike do not read again, on the CPU.
                What was not used for longest is freed first. 0 keeps nothing. See docs/decisions/prefix-cache.md.
            picture_cache: Bytes for the features of pictures that requests have shown, so that the same picture is not
                encoded again (docs/vision.md).
            scheduler: How many requests of all threads run together and how many may wait, and the memory for them;
                None: the defaults of `SchedulerSettings`.
            shadow: Share of the answers of `generate` that are compared with the base afterwards, 0 to 1: see
                `shadow_report`.

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
        limit, pictures = checked_limit(prefix_cache), checked_picture_cache(picture_cache)
        policy, shadowing = as_policy(trust), Shadow(shadow)
        found = read_directory(Path(directory), verify)
        with ThreadPoolExecutor(1) as pool:
            # Half as long as the session: load both at once.
            opening = pool.submit(Text, found.path, found.eos_ids, found.context_length)
            graph = Graph(found, settings)
            text = opening.result()
        text.reader = open_reader(graph, settings, pictures)
        made = cls(graph, text, max_value or {}, policy, limit, scheduler)
        made._shadow = shadowing
        return made

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

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is a sequence of str, too
        self,
        prompt: Prompt | None,
        skill: SkillSpec | Active = ACTIVE,
        *,
        raw: bool = False,
        context: Context | None = None,
        batch_size: int = BATCH_SIZE,
        **settings: Unpack[Settings],
    ) -> Generation: ...
    @overload
    def generate(
        self,
        prompt: Prompt | Sequence[Prompt] | None,
        skill: SkillSpec | SkillSpecs | Active = ACTIVE,
        *,
        raw: bool = False,
        context: Context | None = None,
        batch_size: int = BATCH_SIZE,
        **settings: Unpack[Settings],
    ) -> list[Generation]: ...
    def generate(
        self,
        prompt: Prompt | Sequence[Prompt] | None,
        skill: SkillSpec | SkillSpecs | Active = ACTIVE,
        *,
        raw: bool = False,
        context: Context | None = None,
        batch_size: int = BATCH_SIZE,
        **settings: Unpack[Settings],
    ) -> Generation | list[Generation]:
        """Answer one prompt or several.

        Args:
            prompt: A request as text or as a list of parts (docs/vision.md), a list of messages, or a list of these. A
                request goes through the skill's interface: prefix and suffix around it, the form of the answers.
                Messages do not; if they end with one of the assistant's, the answer continues that text.
            skill: For this call only: a name, a blend, None for the base, ``"auto"`` for what `route` chooses, or a
                list with one for each row (one prompt with a list of skills is answered once with each). Default: the
                active skill.
            raw: Take the prompt as it is, without the chat template and the skill's interface. Special tokens that
                it spells are special: never pass text of others with it. Without `raw`, all given text is data.
            context: What the prompts begin with, from `prefill`. With it, the prompt None asks nothing more.
            batch_size: Maximum number of rows that run together; a row's answer does not depend on it.
            **settings: max_new_tokens, temperature (0 is greedy), top_k, top_p, repetition_penalty, frequency_penalty,
                presence_penalty, seed and stop, for all rows. Missing settings come from the skill, then from the
                defaults: greedy, at most 256 tokens. The same seed gives the same answer, alone and in any batch; so
                rows with the same prompt, skill and seed have the same answer. `cancel` (a threading.Event, or anything
                with is_set()) and `timeout` (seconds from the call on) stop all rows after the current token or chunk
                of a prompt. `answers` says what an answer must be: a list of choices, of which a greedy answer is the
                one that `choose` picks, a JSON schema as a dict, or an `AnswerSpec`; if it does not fit into
                max_new_tokens, the finish reason is ``"length"``. `speculate=False` drafts no tokens. `logprobs=n`
                reports how likely every token was, and the n likeliest ones (n = 0 to 20). `tools` are functions that
                the chat template shows, as JSON objects.

        Returns:
            One Generation, or a list if `prompt` or `skill` is a list. The finish reason of rows that were stopped is
            ``"cancelled"`` or ``"timeout"``; they have the text until then, which may be none.

        Raises:
            UnknownSkillError: A skill is not loaded.
            ConfigError: Names every invalid setting and prompt.
        """
        rows = split_rows(prompt, skill)
        batch_size = whole_batch_size(batch_size)
        generations = self._answer(rows, raw, settings, context, batch_size)
        return generations[0] if rows.single else generations

    def stream(
        self,
        prompt: Prompt,
        skill: SkillSpec | Active = ACTIVE,
        *,
        raw: bool = False,
        context: Context | None = None,
        **settings: Unpack[Settings],
    ) -> Stream:
        """Answer one prompt piece by piece; arguments and errors as in `generate`.

        Returns:
            An iterator over pieces of text. After the last piece, its `generation` holds the complete result.
        """
        rows = one_row(prompt, skill, "stream")
        control = Control.of(settings)
        answers, lease, routed = self._open(rows, raw, settings, context, control)
        job = self._scheduler.job(answers[0], control, lease, streamed=True)
        return self._stream(job, finisher(self._generation, routed[0]))

    def submit(
        self,
        prompt: Prompt,
        skill: SkillSpec | Active = ACTIVE,
        *,
        raw: bool = False,
        context: Context | None = None,
        on_piece: Callable[[str, list[int]], object] | None = None,
        on_end: Callable[[Ticket], object] | None = None,
        **settings: Unpack[Settings],
    ) -> Ticket:
        """Answer one prompt without waiting for it; arguments and errors as in `generate`.

        Some thread has to drive: one in `scheduler.run`, or one that waits for an answer, but not the main thread.

        Args:
            on_piece: Called by that thread after each step, with the new text, maybe empty, and the new token ids. It
                should return at once: others wait. What it raises ends the request.
            on_end: Called by that thread once, when the request has ended.

        Raises:
            OverloadedError: Too many requests are waiting.
        """
        rows = one_row(prompt, skill, "submit")
        control = Control.of(settings)
        answers, lease, routed = self._open(rows, raw, settings, context, control)
        job = self._scheduler.job(answers[0], control, lease, on_piece=on_piece)
        return Ticket(self._scheduler, job, finisher(self._generation, routed[0]), on_end)

    @property
    def scheduler(self) -> Scheduler:
        """Runs the requests of all threads: its `stats`, and `run` for the thread of a server."""
        return self._scheduler

    @overload
    def choose(  # type: ignore[overload-overlap]
        self,
        prompt: Prompt,
        choices: Sequence[str],
        skill: SkillSpec | Active = ACTIVE,
        *,
        best_only: bool = False,
        raw: bool = False,
        context: Context | None = None,
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
        context: Context | None = None,
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
        context: Context | None = None,
        cancel: Event | None = None,
        timeout: float | None = None,
    ) -> Choice | list[Choice]:
        """Pick the likeliest of several given answers, by log P(choice + end of turn | prompt).

        Args:
            prompt, skill, raw, context: As in `generate`.
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
        opening = opening_of(context, self._prefixes, raw)
        lease, routed = self._lease(rows, raw, opening, control)
        with lease:
            tokens = encode_prompts(self._graph, self._text, rows.prompts, lease.applied, raw, opening)
            prompts = list(zip(tokens, lease.applied, strict=True))
            scores = list(score_prompts(self._graph, lease.array, prompts, encoded, best_only, control, self._prefixes))
        chosen = [
            with_route(to_choice(row, applied, self.contract, best_only), found)
            for row, applied, found in zip(scores, lease.applied, routed, strict=True)
        ]
        return chosen[0] if rows.single else chosen

    def prefill(
        self,
        context: Prompt,
        skill: SkillSpec | Active = ACTIVE,
        *,
        cancel: Event | None = None,
        timeout: float | None = None,
    ) -> Context:
        """Read once what many prompts begin with, and keep it until the returned context is closed.

        Prompts with ``context=`` are its messages, then the question as a message of the user, which continues the
        context's last message if that is the user's, too. The system text is that of `skill` here, not of the skill
        that answers. The context is shared exactly by all skills of activation ``"response"`` and the base; with any
        other skill only if the same one (its generation) read it here. Other skills read it again.

        Args:
            context: A text, such as a document, or a list of messages.
            skill: As in `generate`, but one.
            cancel, timeout: As in `generate`.

        Raises:
            UnknownSkillError: The skill is not loaded.
            ConfigError: The context is invalid, or does not fit into that of the model.
            StoppedError: Cancelled, or the time was over, before it was read.
        """
        control = Control.of({"cancel": cancel, "timeout": timeout})
        with self._registry.lease([skill]) as lease:
            applied = lease.applied[0]
            opening = Opening.of(context, applied.interface.system)
            tokens = read_opening(self._graph, self._text, opening, applied)
            made = Context(self._prefixes, opening, len(tokens.ids))
            made.read(self._graph, lease.array, tokens, applied, control)
        return made


def _library(operators: str | os.PathLike[str] | None) -> Path | Literal["auto"] | None:
    if operators is None or (isinstance(operators, str) and operators == AUTO):
        return None if operators is None else AUTO
    if not isinstance(operators, str | os.PathLike):
        raise ConfigError(f"operators is {show(operators)}; expected 'auto', None, or the path of a library")
    return Path(operators)
