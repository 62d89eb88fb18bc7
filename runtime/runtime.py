"""One small model, many skills: load a model directory, switch skills by number, answer.

The facade. What it promises to callers: nothing escapes but LimeError; whatever fails, the skills
loaded before keep answering as before; `skill=` of a call is never seen by another call. Runs
without torch, transformers, peft and onnx.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Unpack, overload

from lime_edge.contract.model import ModelContract
from lime_edge.contract.vector_kinds import Kind
from lime_edge.errors import ConfigError
from lime_edge.runtime.decoding.generation_options import Options, Settings
from lime_edge.runtime.decoding.golden_proof import prove as prove_skill
from lime_edge.runtime.decoding.loop import Answer, Request, open_answers, run, with_prefix
from lime_edge.runtime.decoding.scoring import encode_choices, probabilities, score_prompts
from lime_edge.runtime.decoding.stream import Stream
from lime_edge.runtime.model.directory import read_directory
from lime_edge.runtime.model.session import Graph, SessionSettings
from lime_edge.runtime.native.operators import AUTO, Operators
from lime_edge.runtime.skills.bank import Bank
from lime_edge.runtime.skills.registry import AppliedSkill, Lease, LoadConditions, Registry, check_limits
from lime_edge.runtime.text.prompts import Text, Tokens
from lime_edge.skills.compatibility import LIMITS, check_skill
from lime_edge.skills.package import Skill
from lime_edge.trust.policy import Signer, TrustPolicy, as_policy, read_trusted_skill

from .call_rows import split_rows
from .types import ACTIVE, Active, Choice, Generation, Prompt, SkillInfo, SkillSpec, SkillSpecs

BATCH_SIZE = 8  # rows run together unless told otherwise


class Runtime:
    """An exported model and the skills loaded into it. Safe to use from several threads.

    Made by `Runtime.load`.
    """

    def __init__(
        self, graph: Graph, text: Text, limits: Mapping[Kind, float], trust: TrustPolicy | None = None
    ) -> None:
        self._graph, self._text, self._limits, self._trust = graph, text, {**LIMITS, **limits}, trust
        table = graph.directory.contract.table
        self._bank = Bank(table.row_size, graph.bank_dtype)
        self._registry = Registry(self._bank, table, self._limits)

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
        """Open what `lime-edge export` wrote.

        Args:
            directory: With lime.json, model.onnx, genai_config.json and the tokenizer's files.
            device: ``"cpu"``, ``"cuda"``, or ``"auto"``: CUDA where onnxruntime has it. The CUDA path
                was not run on a GPU.
            threads: Of ONNX Runtime; None takes one per physical core that this process may use (its affinity
                and its container's quota, on Linux).
            max_value: The largest |value| that a skill or blend may hold, by kind of vector, over
                `lime_edge.skills.compatibility.LIMITS`.
            verify: Hash the weights too (the graph always is).
            spin: Microseconds that a waiting thread stays awake before it sleeps. None: 20, enough for the pauses
                within a token, with onnxruntime 1.26 or later, else 0. With 2 threads that is a fifth faster than 0 on
                an idle machine, and about a fifth slower on one that is busy with something else.
            operators: ``"auto"``: the native LiME operators where this package was installed with them and
                they fit the device, else the graph's own functions; None: the functions; or a library of
                yours. None is ever taken from `directory`. `Runtime.operators` says what is in use.
            mapped: A folder for a copy of the model in the order that this processor wants, made at the first
                start (twice the model's size) and trusted from then on: two fifths of the private memory, and starts
                take less. Made anew when model, onnxruntime or processor are others.
            trust: The policy, or its file, that every skill is held to (docs/trust.md): whose signatures are taken,
                for which skills and versions. None takes any sound package that fits.

        Raises:
            ModelError: Names every file that is missing or changed, or what the graph lacks.
            DeviceError: The device is not there; the message says which are.
            ConfigError: An argument is out of range, or the library that it names cannot be used.
            PolicyError: Names every fault of the trust policy.
        """
        copy = None if mapped is None else Path(mapped).absolute()
        settings = SessionSettings(device, threads, spin, _library(operators), copy)
        check_limits(max_value or {})
        policy = as_policy(trust)
        found = read_directory(Path(directory), verify)
        with ThreadPoolExecutor(1) as pool:
            text = pool.submit(Text, found.path, found.eos_ids)  # takes half as long as the session
            return cls(Graph(found, settings), text.result(), max_value or {}, policy)

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        return self._graph.device

    @property
    def operators(self) -> Operators:
        """What runs the LiME operators, and why not the native library where it does not."""
        return self._graph.operators

    @property
    def contract(self) -> ModelContract:
        """The model's lime.json."""
        return self._graph.directory.contract

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together, at most."""
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
        """Load a skill package; running requests do not notice.

        It is read, checked and proved beside what is loaded, then switched to at once: requests see the old
        generation or the new one, and whatever fails changes nothing.

        Args:
            path: The .lime file.
            name: What to call it; None takes the package's own name.
            prove: Run its golden prompts on this graph first.
            replace: Take the place of the skill of that name, also where it is active or part of the active blend.
                Requests in flight finish with the old one.
            allow_downgrade: With a trust policy, let `replace` also go back to an older version.
            expected_generation: Only if this one is loaded (`SkillInfo.generation`; 0: none of that name). None: any.

        Raises:
            SkillTrustError: The trust policy refuses it, or its signature does not hold.
            SkillVersionError: With a trust policy: older than what it would replace.
            SkillFormatError: Not a sound package.
            SkillMismatchError: Made for another backbone, adapter or routing, or beyond the limits.
            SkillProofError: Its golden prompts do not reproduce.
            SkillConflictError: Another generation is loaded than the expected one.
            SkillError: There is no memory for it.
            ConfigError: The name is taken, or is not one; or the active blend cannot use the new one.
        """
        admitted = read_trusted_skill(path, self._trust)
        skill = admitted.skill
        name = skill.manifest.name if name is None else name
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ConfigError(f"the name {name!r} cannot be used; expected printable text")
        placing = LoadConditions(replace, expected_generation, upwards=self._trust is not None and not allow_downgrade)
        self._registry.admit(name, skill.manifest.version, placing)
        check_skill(skill, self.contract, self._limits)
        segments = self.contract.table.pack(skill.tensors)
        row = self._bank.add(segments.ravel())
        applied = _applied(skill, name, row, len(segments), prove, admitted.signer)
        try:
            if prove:
                array = self._bank.array
                prove_skill(self._graph, array, self._text, name, skill.manifest.golden, applied)
            return self._registry.add(name, applied, placing)
        except BaseException:
            self._bank.release([row])
            raise

    def use_skill(self, skill: SkillSpec) -> None:
        """Make a skill the one for calls without ``skill=``; costs microseconds.

        Args:
            skill: A name, weights by name for a blend, or None for the base.

        Raises:
            UnknownSkillError: Not loaded; names those that are.
            ConfigError: A blend that cannot be made.
        """
        self._registry.activate(skill)

    @property
    def active_skill(self) -> SkillSpec:
        """What calls without ``skill=`` use, here and now; None is the base."""
        return self._registry.active

    def disable_skill(self) -> AbstractContextManager[None]:
        """Within it, calls of this thread (or asyncio task) without ``skill=`` use the base."""
        return self._registry.disabled()

    def skills(self) -> list[SkillInfo]:
        """The loaded skills, in the order of loading."""
        return self._registry.infos()

    def unload_skill(self, name: str, expected_generation: int | None = None) -> None:
        """Forget a skill; requests that began with it finish with it.

        Args:
            name: Which.
            expected_generation: Only if this one is loaded. None: any.

        Raises:
            UnknownSkillError: Not loaded; names those that are.
            SkillConflictError: Another generation is loaded than the expected one.
            ConfigError: It is active.
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
        """Answer one prompt or many.

        Args:
            prompt: Text (a user message), a list of messages, or a list of either.
            skill: For this call only: a name, a blend, None for the base, or a list with one for every
                row (one prompt with a list of skills is answered with each). Not given: the active one.
            raw: The prompt is plain text, without the chat template and the skill's system text.
            batch_size: Rows run together; a row's answer does not depend on it.
            **settings: max_new_tokens, temperature (0 is greedy), top_k, top_p, repetition_penalty,
                seed and stop, for all rows. What is not given is the skill's, else greedy with at most
                256 tokens. The same seed gives the same answer, alone and in any batch; so rows with
                the same prompt, skill and seed answer the same.

        Returns:
            One Generation, or a list where prompt or skill was a list.

        Raises:
            UnknownSkillError: A skill is not loaded.
            ConfigError: Names every setting and prompt that cannot be used.
        """
        rows = split_rows(prompt, skill)
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size!r}; expected a whole number of 1 or more")
        with self._registry.lease(rows.skills) as lease:
            answers = self._open(rows.prompts, lease, raw, settings)
            for start in range(0, len(answers), batch_size):
                for _ in run(self._graph, lease.array, answers[start : start + batch_size]):
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
            An iterator over pieces of text; its `generation` has the rest once it is over.
        """
        rows = split_rows(prompt, skill)
        if not rows.single:
            raise ConfigError("stream takes one prompt and one skill; generate takes lists")
        lease = self._registry.lease(rows.skills)
        try:
            answers = self._open(rows.prompts, lease, raw, settings)
        except BaseException:
            lease.release()
            raise
        return Stream(lease, answers[0], run(self._graph, lease.array, answers), self._generation)

    @overload
    def choose(  # type: ignore[overload-overlap]
        self,
        prompt: Prompt,
        choices: Sequence[str],
        skill: SkillSpec | Active = ACTIVE,
        *,
        best_only: bool = False,
        raw: bool = False,
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
    ) -> list[Choice]: ...
    def choose(
        self,
        prompt: Prompt | Sequence[Prompt],
        choices: Sequence[str],
        skill: SkillSpec | SkillSpecs | Active = ACTIVE,
        *,
        best_only: bool = False,
        raw: bool = False,
    ) -> Choice | list[Choice]:
        """The likeliest of a few answers, by log P(choice + end of turn | prompt).

        Args:
            prompt, skill, raw: As in `generate`. Prompts that begin alike share the run of that beginning.
            choices: Texts; an answer is exactly one of them.
            best_only: Only the label matters: skip choices that cannot win. The label is the same.

        Returns:
            One Choice, or a list where prompt or skill was a list.

        Raises:
            UnknownSkillError: A skill is not loaded.
            ConfigError: Prompts or choices cannot be used, or do not fit into the context.
        """
        rows, encoded = split_rows(prompt, skill), encode_choices(choices, self._text)
        with self._registry.lease(rows.skills) as lease:
            prompts = [
                (self._tokens(one, applied, raw), applied)
                for one, applied in zip(rows.prompts, lease.applied, strict=True)
            ]
            found = list(score_prompts(self._graph, lease.array, prompts, encoded, best_only))
        chosen = [
            Choice(
                label=max(scores, key=scores.__getitem__),
                probabilities={} if best_only else probabilities(scores),
                scores=scores,
                receipt=self._receipt(applied),
            )
            for scores, applied in zip(found, lease.applied, strict=True)
        ]
        return chosen[0] if rows.single else chosen

    def _tokens(self, prompt: Prompt, applied: AppliedSkill, raw: bool) -> Tokens:
        return with_prefix(self._text.tokens(prompt, applied.system, raw), applied, self._graph)

    def _open(self, prompts: Sequence[Prompt], lease: Lease, raw: bool, settings: Settings) -> list[Answer]:
        """Requests of a call, checked, ready to run."""
        requests = [
            Request(
                self._tokens(prompt, applied, raw),
                applied,
                Options.settle(settings, applied.defaults),
            )
            for prompt, applied in zip(prompts, lease.applied, strict=True)
        ]
        return open_answers(self._graph, self._text, requests)

    def _generation(self, answer: Answer) -> Generation:
        return Generation(
            text="".join(answer.pieces),
            token_ids=tuple(answer.ids),
            finish_reason=answer.reason,
            timings=answer.timings,
            receipt=self._receipt(answer.request.applied),
        )

    def _receipt(self, applied: AppliedSkill) -> dict[str, Any]:
        """What answered, by digest."""
        contract = self.contract
        skills = [
            {
                "name": info.name,
                "version": info.version,
                "digest": info.digest,
                "generation": info.generation,
                "signer": None if info.signer is None else asdict(info.signer),
                "weight": weight,
            }
            for info, weight in applied.parts
        ]
        return {
            "skills": skills,
            "activation": applied.activation if skills else None,
            "backbone": contract.backbone_digest,
            "adapter": contract.adapter_digest,
            "graph": contract.graph_digest,
            "precision": contract.precision,
        }


def _library(operators: str | os.PathLike[str] | None) -> Path | Literal["auto"] | None:
    return AUTO if operators == AUTO else None if operators is None else Path(operators)


def _applied(skill: Skill, name: str, row: int, experts: int, proved: bool, signer: Signer | None) -> AppliedSkill:
    manifest = skill.manifest
    info = SkillInfo.of(skill, name, proved, signer)
    defaults = {**manifest.prompt["generation"], "stop": tuple(manifest.prompt["stop"])}
    return AppliedSkill(row, experts, manifest.activation, manifest.prompt["system"], defaults, ((info, 1.0),))
