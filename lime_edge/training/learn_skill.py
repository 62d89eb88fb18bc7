"""Learns one new skill on a frozen backbone and a frozen shared adapter.

Only the skill's own vectors are trained, so no skill can change another. The metrics are those of the quantised values
in the package, which is written once, after it was measured. What all prompts share, the instruction, is cut before the
skill learns; if that makes it no better than the base with the instruction, it learns again with it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import TrainerCallback

from lime_edge.contract.routing import Routing
from lime_edge.contract.vector_kinds import KINDS, Kind
from lime_edge.errors import ConfigError, DataError
from lime_edge.evaluation.examples import Row
from lime_edge.evaluation.instruction import Instruction
from lime_edge.evaluation.metrics import Score
from lime_edge.evaluation.splits import DataFacts
from lime_edge.method import distributed
from lime_edge.method.config import LimeConfig
from lime_edge.method.registry import VARIANTS
from lime_edge.skills.compatibility import LIMITS
from lime_edge.skills.draft_table import DraftTable
from lime_edge.skills.interface import AnswerForm, Interface
from lime_edge.skills.manifest import Activation, Golden, Made, Manifest, manifest_faults
from lime_edge.skills.package import Skill, write_skill
from lime_edge.skills.vector_codec import kind_of, module_of
from lime_edge.training.package_parts.golden_prompts import golden_prompts, made_for, today
from lime_edge.training.package_parts.route_states import route_of_rows
from lime_edge.training.package_parts.skill_interface import draft_table, interface_of
from lime_edge.training.package_parts.skill_scores import SkillScores, measure

from . import backbone, checkpoint
from .checkpoint import Vectors
from .dataset import Collator, Examples
from .plan import TrainingPlan
from .predictor import Predictor, pad_id
from .trainer import fit, resumable, unwritable
from .training_rows import TrainingRows, check_prompts, note, pick, rows_of_skill

#: The default plan for a skill; docs/log.md lists the alternatives that were tried.
SKILL_PLAN = TrainingPlan(
    steps=200,
    batch=8,
    vector_rate=2e-2,
    vector_scales={"expert": 10.0, "gain": 4.0, "shift": 0.3},
    optimizer="signal",
    save_every=25,
)

#: Inside a feed-forward block, one gain per neuron is as good as more vectors (docs/log.md, 2026-11-26).
GAIN_ONLY = ("gate_proj", "up_proj", "gate_up_proj", "c_fc")

_ABOUT = ("description", "license", "author", "version")
_NO_DIGEST = "0" * 64
_AGAIN = "again"  # folder of the second run, in that of the first
_NEAR = 0.99  # share of a limit that vectors may reach, since storage rounds them


@dataclass(frozen=True)
class Recipe:
    """What kind of skill to learn, and its metadata."""

    name: str
    experts: int = 1  # 1, or the number of experts of the exported model
    expert: bool | None = None  # learn expert vectors; None: with several experts, or if the variant needs them
    gain_only: Sequence[str] | None = None  # projections that learn only a gain; None: GAIN_ONLY, where adapted
    rank_gate: bool = False  # also learn the rank gate q; the model must be exported with --rank-gate
    activation: Activation = "always"  # or "response": the base alone processes the prompt
    system: str | None = None  # system text to learn and use the skill with
    keep_instruction: bool = False  # keep what all prompts share in the interface, instead of cutting it
    answers: AnswerForm | None = None  # None: the choices that all rows share, else free text
    draft: bool = True  # put a draft table of the training answers into the package
    dtype: Literal["i8", "f16"] = "i8"
    max_length: int = 512  # tokens; longer rows are left out
    metric_rows: int = 100  # validation rows to measure; 0 measures nothing
    about: dict[str, str] = field(default_factory=dict)  # description, license, author, version

    def needs_expert(self, base: str) -> bool:
        """Whether the skill fails, or loses part of its effect, without expert vectors."""
        return self.rank_gate or not VARIANTS[base].works_without_expert

    def learns(self, name: str) -> bool:
        """Whether the skill has the vector ``<kind>.<module>``, given that it has the kind."""
        few = GAIN_ONLY if self.gain_only is None else self.gain_only
        return kind_of(name) == "gain" or _projection(module_of(name)) not in few


def learn(
    data: Path,
    checkpoint_dir: Path,
    output: Path,
    recipe: Recipe,
    plan: TrainingPlan,
    valid: Path | None = None,
    rounded: Path | None = None,
    resume: bool = False,
) -> tuple[Skill, dict[str, float]]:
    """Learn a skill and write its package.

    Args:
        data: A data file, or a folder with train.jsonl and, optionally, valid.jsonl (docs/data.md has all formats).
        checkpoint_dir: The checkpoint, from `lime-edge train`.
        output: The path of the package to write.
        recipe: What to learn.
        plan: How long and how fast.
        valid: A file of rows to measure on; by default valid.jsonl in the folder, else a tenth of the rows. Rows with
            the same prompt are left out of the training.
        rounded: An int4 export of the checkpoint, whose weights the skill is learned on.
        resume: Continue an interrupted run of the same command.

    Returns:
        The package, and figures: those that `trainer.fit` returns, the counts of `DataFacts`, ``draft_entries`` and
        ``draft_bytes`` if there is a draft table and, if the skill was learned twice, ``score_carried``,
        ``score_kept`` and ``score_base``.

    Raises:
        ConfigError, DataError: Recipe, checkpoint, output or data cannot be used; every fault is named.
    """
    _check(recipe, checkpoint.read_config(checkpoint_dir), output)
    rows = rows_of_skill(data, valid, plan.seed, measured=recipe.metric_rows > 0)
    measured = pick(rows.valid, recipe.metric_rows, plan.seed)
    instruction = Instruction.of(rows.train)
    state = state_folder(output)
    if not resume:
        shutil.rmtree(state, ignore_errors=True)  # left by an interrupted run
    lesson = _Lesson(checkpoint_dir, output.name, recipe, plan, rounded, rows, measured, instruction, state)
    first = lesson.learn(recipe.keep_instruction, resume)
    learned = lesson.reconsider(first, resume) if instruction and not first.kept else first
    skill = lesson.write(output, learned)
    shutil.rmtree(state, ignore_errors=True)
    return skill, learned.figures | asdict(learned.facts) | lesson.draft_figures(skill)


@dataclass(frozen=True)
class _Learned:
    """A skill that was learned and measured, but not yet written.

    Attributes:
        kept: Whether it learned with the instruction.
        package: Its vectors as a package stores them.
        scores: None if nothing was to be measured.
    """

    kept: bool
    package: Skill
    figures: dict[str, float]
    scores: SkillScores | None
    facts: DataFacts


@dataclass(frozen=True)
class _Lesson:
    """Everything that is the same whether the skill learns with the instruction of its data or without it."""

    checkpoint_dir: Path
    name: str  # of the package file
    recipe: Recipe
    plan: TrainingPlan
    rounded: Path | None
    rows: TrainingRows
    measured: list[Row]
    instruction: Instruction
    state: Path  # folder of the interrupted run

    def learn(self, kept: bool, resume: bool, base: Score | None = None) -> _Learned:
        """Learn and measure once; with `base`, the base is not measured again."""
        recipe, rows = self.recipe, self._rows(kept)
        torch.manual_seed(self.plan.seed)  # some vectors start at random values
        model, tokenizer, where = prepare(self.checkpoint_dir, recipe, backbone.training_dtype())
        train_set = Examples(tokenizer, rows.train, recipe.max_length, recipe.system)
        check_prompts(tokenizer, rows.valid, recipe.system)
        check_prompts(tokenizer, self.measured, recipe.system, backbone.room_of(model))
        self._note(kept)
        rows.report(train_set)
        response_only = recipe.activation == "response"
        manifest = self._manifest(model, where, kept, rows.facts(train_set))
        callbacks = [] if self.rounded is None else [_on_rounded(model, self.rounded, where)]
        state = self.state if base is None else self.state / _AGAIN
        collator = Collator(pad_id(tokenizer), response_only)
        figures = fit(model, train_set, None, collator, self.plan, state, resume, callbacks)
        learned = {name: values for name, values in checkpoint.get_vectors(model).items() if recipe.learns(name)}
        state.mkdir(parents=True, exist_ok=True)
        package = write_skill(state / self.name, manifest, within_limits(learned), recipe.dtype)  # quantises
        checkpoint.set_vectors(model, package.tensors)
        predictor = Predictor(model, tokenizer, response_only, recipe.system)
        cut = Instruction() if kept else self.instruction
        scores = measure(predictor, self.measured, cut, base) if self.measured else None
        return _Learned(kept, package, figures, scores, rows.facts(train_set))

    def reconsider(self, first: _Learned, resume: bool) -> _Learned:
        """Learn again with the instruction if the skill without it is not better than the base; the better one."""
        if first.scores is None:
            note("not compared with the base, since nothing is measured: check that the skill needs no instruction")
            return first
        carried, base = first.scores.values
        if carried > base:
            note(f"without the instruction the skill has {carried:.3f}, the base with it {base:.3f}")
            return first
        note(f"without it the skill has only {carried:.3f}, the base with it {base:.3f}: learning again with it")
        try:
            second = self.learn(True, resume and resumable(self.state / _AGAIN), first.scores.base)
        except DataError as error:
            note(f"the instruction cannot be kept: {error}")
            return first
        kept = second.scores.values[0] if second.scores else 0.0
        better = second if kept > carried else first
        note(f"with the instruction the skill has {kept:.3f}, without it {carried:.3f}: the better one is written")
        compared = {"score_carried": carried, "score_kept": kept, "score_base": base}
        return replace(better, figures=better.figures | compared)

    def write(self, output: Path, learned: _Learned) -> Skill:
        """Answer the golden prompts in float32, so that every runtime can be compared, and write the package."""
        recipe, package = self.recipe, learned.package
        model, tokenizer, _ = prepare(self.checkpoint_dir, recipe, torch.float32)
        checkpoint.set_vectors(model, package.tensors)
        predictor = Predictor(model, tokenizer, recipe.activation == "response", recipe.system)
        golden: list[Golden] = golden_prompts(predictor, self._rows(learned.kept).valid)
        metrics = learned.scores.metrics() if learned.scores else []
        manifest = replace(package.manifest, golden=golden, metrics=metrics)
        table = draft_table(tokenizer, self.rows.train) if recipe.draft else None
        route = route_of_rows(self.checkpoint_dir, self._rows(kept=False).train, self.plan.seed)
        return write_skill(output, manifest, package.tensors, recipe.dtype, table, route)

    def draft_figures(self, skill: Skill) -> dict[str, float]:
        """Entries and bytes of the draft table."""
        table: DraftTable | None = skill.draft
        return {"draft_entries": len(table), "draft_bytes": table.size} if table else {}

    def _rows(self, kept: bool) -> TrainingRows:
        """The rows as the skill is asked: without the instruction, unless it is kept."""
        return self.rows if kept else self.rows.without(self.instruction)

    def _note(self, kept: bool) -> None:
        if self.instruction:
            done = "kept in the interface" if kept else "cut: the skill learns to do without"
            note(f"the instruction that all prompts share is {done}: {self.instruction.shown()}")

    def _manifest(self, model: Any, where: Path, kept: bool, facts: DataFacts) -> Manifest:
        recipe, instruction = self.recipe, self.instruction
        bare = self.rows.without(instruction).train
        interface = interface_of(bare, instruction if kept else Instruction(), recipe.answers, recipe.system)
        counts: Any = asdict(facts)
        state: Any = ("kept" if kept else "carried") if instruction else "none"
        made = Made(how="learned", instruction=state, data=counts)
        manifest = replace(_draft(recipe), interface=interface, made=made, **made_for(model, where))
        if faults := manifest_faults(manifest.sealed({}, _NO_DIGEST).to_dict()):
            raise DataError("the instruction of the data does not fit into a package", faults)
        return manifest


def state_folder(output: Path) -> Path:
    """The hidden folder beside a package that keeps an interrupted run, for `resume`."""
    return output.with_name(f".{output.name}.run")


def prepare(checkpoint_dir: Path, recipe: Recipe, dtype: Any) -> tuple[Any, Any, Path]:
    """Open a checkpoint with a skill of the recipe's shape; only the skill's vectors require gradients.

    Returns:
        The PEFT model, the tokenizer, and the backbone's directory.
    """
    model, tokenizer, where = checkpoint.open_checkpoint(checkpoint_dir, dtype)
    config = checkpoint.tuner(model).lime_config
    if faults := _experts_faults(recipe, config):
        raise ConfigError(faults[0])
    shared, start = checkpoint.get_shared(model), checkpoint.get_vectors(model)
    shaped = replace(
        config,
        routing=replace(config.routing, experts=recipe.experts),
        kinds=_kinds(config, recipe),
        shared_vector=False,
        inference_mode=False,
    )
    wrapped = checkpoint.wrap(model.unload(), shaped)
    checkpoint.set_shared(wrapped, shared)
    layers = checkpoint.tuner(wrapped).layers()
    adapted = sorted({_projection(name) for name in layers})
    if unknown := sorted(set(recipe.gain_only or ()) - set(adapted)):
        raise ConfigError(f"gain_only has {', '.join(unknown)}; expected adapted projections: {', '.join(adapted)}")
    for name, layer in layers.items():
        layer.freeze_shared()
        for kind in shaped.kinds:
            learns = recipe.learns(f"{kind}.{name}")
            layer.get_parameter(f"lime_{kind}.{layer.adapter}").requires_grad_(learns)
    first = reshape(start, checkpoint.get_vectors(wrapped))
    checkpoint.set_vectors(wrapped, {name: values for name, values in first.items() if recipe.learns(name)})
    return wrapped, tokenizer, where


def _projection(module: str) -> str:
    return module.rpartition(".")[2]


def within_limits(vectors: Vectors) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Clip vectors to what every runtime accepts: a long run at a high rate can exceed `LIMITS`."""
    most = {name: _NEAR * LIMITS[kind_of(name)] for name in vectors}
    return {name: np.clip(values, -most[name], most[name]) for name, values in vectors.items()}


def reshape(start: Vectors, fresh: Vectors) -> Vectors:
    """Initial vectors in the shapes of `fresh`; experts are averaged where their number differs."""

    def fit_one(name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        if name not in start:
            return fresh[name]
        same = len(start[name]) == len(fresh[name])
        return start[name] if same else np.broadcast_to(start[name].mean(0), fresh[name].shape)

    return {name: fit_one(name) for name in fresh}


def _check(recipe: Recipe, config: LimeConfig, output: Path) -> None:
    """Reject before training whatever would be rejected after it."""
    faults = [f"about.{key} is unknown; expected {', '.join(_ABOUT)}" for key in recipe.about if key not in _ABOUT]
    document = _draft(recipe).sealed({}, _NO_DIGEST).to_dict()
    faults += [fault.removeprefix("manifest.") for fault in manifest_faults(document)]
    faults += _value_faults(recipe)
    if config.base == "prompt" and (recipe.rank_gate or recipe.activation != "always"):
        faults.append("base is prompt; expected rank_gate False and activation 'always'")
    if recipe.expert is False and recipe.needs_expert(config.base):
        faults.append(f"expert is False; {'a rank gate' if recipe.rank_gate else config.base} needs expert vectors")
    if isinstance(recipe.gain_only, str):
        faults.append(f"gain_only is the string {recipe.gain_only!r}; expected a tuple of names, or None")
    if recipe.dtype not in ("i8", "f16"):
        faults.append(f"dtype is {recipe.dtype!r}; expected i8 or f16")
    faults += [*_experts_faults(recipe, config), *unwritable(output.parent)]
    if output.is_dir():
        faults.append(f"{output} is a directory; expected a file to write")
    if distributed.launched() > 1:
        faults.append(f"{distributed.launched()} processes were launched; expected one to learn a skill")
    if faults:
        raise ConfigError("the skill cannot be learned", faults)


def _value_faults(recipe: Recipe) -> Iterator[str]:
    for name, least in (("max_length", 2), ("metric_rows", 0)):
        value = getattr(recipe, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            yield f"{name} is {value!r}; expected a whole number from {least}"
    for name in ("keep_instruction", "draft"):
        if not isinstance(value := getattr(recipe, name), bool):
            yield f"{name} is {value!r}; expected True or False"


def _on_rounded(model: Any, rounded: Path, where: Path) -> TrainerCallback:
    """The import is local because only learning on rounded weights needs the exporter."""
    from .int4_backbone import OnRounded, rounded_faults

    if faults := rounded_faults(rounded, model, backbone.digest(where)):
        raise ConfigError(f"the skill cannot be learned on the weights of {rounded}", faults)
    return OnRounded(model, rounded)


def _experts_faults(recipe: Recipe, config: LimeConfig) -> list[str]:
    fitting = config.routing.experts
    if recipe.experts in (1, fitting) and not isinstance(recipe.experts, bool):
        return []
    return [f"a skill of {recipe.experts!r} experts fits no export of this checkpoint; expected 1 or {fitting}"]


def _kinds(config: LimeConfig, recipe: Recipe) -> tuple[Kind, ...]:
    """The kinds to learn; by default a single expert has no vector, which is not worth its bytes.

    See docs/results-skills.md.
    """
    expert = recipe.experts > 1 or recipe.needs_expert(config.base) if recipe.expert is None else recipe.expert
    wanted = {"gain", "shift", *config.kinds} | ({"rank"} if recipe.rank_gate else set())
    wanted = wanted | {"expert"} if expert else wanted - {"expert"}
    return tuple(kind for kind in KINDS if kind in wanted)


def _draft(recipe: Recipe) -> Manifest:
    """The manifest fields that the recipe determines; the rest are placeholders."""
    return Manifest(
        name=recipe.name,
        version=recipe.about.get("version", "1.0.0"),
        description=recipe.about.get("description", ""),
        license=recipe.about.get("license", "NOASSERTION"),
        author=recipe.about.get("author", ""),
        created=today(),
        backbone=_NO_DIGEST,
        adapter=_NO_DIGEST,
        modules=_NO_DIGEST,
        routing=Routing(),
        activation=recipe.activation,
        interface=Interface(system=recipe.system, answers=recipe.answers or AnswerForm()),
    )
