"""One training run, on the transformers Trainer: groups of parameters, progress, time limit, resume.

Knows nothing of what is trained: `train` and `learn` decide which parameters are free.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from lime_edge.contract.vector_kinds import KINDS
from lime_edge.errors import ConfigError, DataError
from lime_edge.method import distributed
from lime_edge.method.layer import LimeLayer
from lime_edge.method.model import LimeModel

from .attention import plain_if_short
from .dataset import Collator, Examples
from .signal_adamw import SignalAdamW

_SCALED = (*KINDS, "shared", "gate")  # what may have a rate of its own
Optimizer = Literal["adamw", "signal"]
OPTIMIZERS: dict[Optimizer, Callable[..., torch.optim.Optimizer]] = {"adamw": torch.optim.AdamW, "signal": SignalAdamW}
_LINE_EVERY = 20  # steps between lines where there is no terminal to draw a bar on


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train."""

    steps: int = 300  # optimiser steps
    minutes: float | None = None  # stop earlier, after this long
    batch: int = 12  # rows per step, of all processes together
    vector_rate: float = 1e-3  # learning rate of a skill's vectors and gates, which have no weight decay
    vector_scales: Mapping[str, float] = field(default_factory=dict)  # of vector_rate, by kind; 1 where none is
    shared_rate: float = 4e-4  # learning rate of everything else
    weight_decay: float = 0.01  # of everything else
    optimizer: Optimizer = "adamw"  # or AdamW that trusts a gradient by its signal (optimizer.py)
    warmup: float = 0.05  # share of the steps; the rate then falls linearly
    seed: int = 0
    save_every: int = 100  # steps between checkpoints and evaluations
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if faults := [*self._number_faults(), *self._other_faults()]:
            raise ConfigError("this cannot be trained", faults)

    def _number_faults(self) -> Iterator[str]:
        whole = {"steps": 1, "batch": 1, "save_every": 1, "seed": 0}
        real = {"vector_rate": (0, 1e3), "shared_rate": (0, 1e3), "weight_decay": (0, 1e3), "warmup": (0, 1)}
        for name, least in whole.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**32:
                yield f"{name} is {value!r}; expected a whole number from {least}"
        for name, (low, high) in real.items():
            value = getattr(self, name)
            if not _number(value) or not low <= value <= high:
                yield f"{name} is {value!r}; expected a number from {low} to {high:g}"
        for kind, scale in self.vector_scales.items():
            if kind not in _SCALED:
                yield f"vector_scales has {kind!r}; expected {', '.join(_SCALED)}"
            if not _number(scale) or not 0 <= scale <= 1e3:
                yield f"vector_scales of {kind} is {scale!r}; expected a number from 0 to 1000"

    def _other_faults(self) -> Iterator[str]:
        if self.minutes is not None and not (_number(self.minutes) and self.minutes > 0):
            yield f"minutes is {self.minutes!r}; expected a number above 0, or None"
        if self.optimizer not in tuple(OPTIMIZERS):
            yield f"optimizer is {self.optimizer!r}; expected one of {', '.join(OPTIMIZERS)}"


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@contextmanager
def _nameless(model: torch.nn.Module) -> Iterator[None]:
    """PEFT asks the hub about the backbone whenever it saves an adapter that names one."""
    configs = getattr(model, "peft_config", {})
    names = {key: config.base_model_name_or_path for key, config in configs.items()}
    try:
        for config in configs.values():
            config.base_model_name_or_path = ""
        yield
    finally:
        for key, config in configs.items():
            config.base_model_name_or_path = names[key]


@contextmanager
def _bare(model: torch.nn.Module) -> Iterator[None]:
    """PEFT saves the backbone's embedding with every adapter that is on it; nothing of the backbone is trained here."""
    save = getattr(model, "save_pretrained", None)
    if save is not None:
        model.save_pretrained = partial(save, save_embedding_layers=False)  # type: ignore[assignment]
    try:
        yield
    finally:
        if save is not None:
            del model.save_pretrained


def parameter_groups(model: torch.nn.Module, plan: Plan) -> list[dict[str, Any]]:
    """Trainable parameters in groups: a skill's vectors, by their rates, and the rest."""
    vectors: dict[float, list[torch.nn.Parameter]] = {}
    for module in model.modules():
        if isinstance(module, LimeLayer):
            for name in (*module.vector_names, "lime_shared", "lime_gate"):
                rate = plan.vector_rate * plan.vector_scales.get(name.removeprefix("lime_"), 1.0)
                held = [p for p in getattr(module, name).values() if p.requires_grad]
                vectors.setdefault(rate, []).extend(held)
    known = {id(p) for held in vectors.values() for p in held}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    groups = [{"params": held, "lr": rate, "weight_decay": 0.0} for rate, held in vectors.items()]
    groups.append({"params": others, "lr": plan.shared_rate, "weight_decay": plan.weight_decay})
    return [group for group in groups if group["params"]]


def fit(
    model: torch.nn.Module,
    train: Examples,
    valid: Examples | None,
    collator: Collator,
    plan: Plan,
    state_dir: Path,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, float]:
    """Train the parameters that require gradients.

    Args:
        model: A PEFT model.
        train, valid: Tokenised rows.
        collator: Makes the batches.
        plan: How long and how fast.
        state_dir: Where checkpoints of the run are kept (model, optimiser, random state).
        resume: Go on from the newest checkpoint in `state_dir`.
        callbacks: More to do at every step.

    Returns:
        Final figures: ``train_loss``, ``eval_loss`` (with valid), ``tokens_per_second``, ``steps``.

    Raises:
        DataError: `resume` without a checkpoint.
        ConfigError: the processes cannot share the rows of a step evenly.
    """
    if plan.batch % distributed.launched():
        count = distributed.launched()
        raise ConfigError(f"{plan.batch} rows a step are not shared by {count} processes; choose a multiple of {count}")
    newest = _newest(state_dir) if resume else None
    if resume and newest is None:
        raise DataError(f"nothing to resume: {state_dir} holds no checkpoint")
    optimizer = OPTIMIZERS[plan.optimizer](parameter_groups(model, plan))
    progress = _Progress(plan.minutes)
    trainer = _Trainer(
        model=model,
        args=_arguments(plan, state_dir, valid is not None),
        train_dataset=train,
        eval_dataset=valid,
        data_collator=collator,
        optimizers=(optimizer, None),
        callbacks=[progress, *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    with _nameless(model), _bare(model):
        result = trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    figures = {"train_loss": float(result.training_loss), "steps": float(trainer.state.global_step)}
    figures["tokens_per_second"] = progress.tokens_per_second
    if valid is not None:
        figures["eval_loss"] = _evaluated(trainer.state) or float(trainer.evaluate()["eval_loss"])
    return figures


def unwritable(folder: Path) -> list[str]:
    """Make the folder; says why nothing can be written there, if so."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return []
    except OSError as error:
        return [f"nothing can be written to {folder}: {error}"]


def _evaluated(state: TrainerState) -> float | None:
    """The validation loss after the last step, if it was measured there."""
    found = [log["eval_loss"] for log in state.log_history if "eval_loss" in log and log["step"] == state.global_step]
    return float(found[-1]) if found else None


def _arguments(plan: Plan, state_dir: Path, evaluate: bool) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(state_dir),
        max_steps=plan.steps,
        per_device_train_batch_size=plan.batch // distributed.launched(),
        per_device_eval_batch_size=plan.batch // distributed.launched(),
        ddp_find_unused_parameters=False,
        warmup_steps=max(1, round(plan.warmup * plan.steps)),
        lr_scheduler_type="linear",
        max_grad_norm=1.0,
        seed=plan.seed,
        include_num_input_tokens_seen="non_padding",
        activation_checkpointing=plan.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        logging_steps=5,
        save_steps=plan.save_every,
        eval_strategy="steps" if evaluate else "no",
        eval_steps=plan.save_every,
        prediction_loss_only=True,
        save_total_limit=2,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # several in one process would copy the layers, and not their context
    return arguments


class _Trainer(Trainer):
    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        with plain_if_short(self.model, inputs["input_ids"]):
            return super().training_step(model, inputs, num_items_in_batch)

    def _get_train_sampler(self, train_dataset: Any = None) -> _Order:
        examples: Any = self.train_dataset if train_dataset is None else train_dataset
        batch = self.args.train_batch_size * distributed.launched()
        return _Order([len(item["input_ids"]) for item in examples], batch, self.args.seed)


class _Order(LengthGroupedSampler):
    """Rows of about the same length together, in an order by seed and epoch alone, so that a resumed run keeps it.

    An epoch's last step is filled up with the epoch's first rows: the same for any number of processes.
    """

    def __init__(self, lengths: list[int], batch: int, seed: int) -> None:
        super().__init__(batch, lengths=lengths, generator=torch.Generator())
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths) + self._missing

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + 1000 * self.epoch)
        indices: list[int] = list(super().__iter__())  # type: ignore[no-untyped-call]
        return islice(cycle(indices), len(self))

    @property
    def _missing(self) -> int:
        return -len(self.lengths) % self.batch_size


def _newest(state_dir: Path) -> Path | None:
    """The newest checkpoint that was written to its end, which is trainer_state.json."""
    whole = [path.parent for path in state_dir.glob("checkpoint-*/trainer_state.json") if _is_json(path)]
    return max(whole, key=lambda path: int(path.name.split("-")[-1]), default=None)


def _is_json(path: Path) -> bool:
    """A run may have been killed while it wrote."""
    try:
        json.loads(path.read_text("utf-8"))
    except ValueError:
        return False
    return True


class _Progress(TrainerCallback):
    """A bar with loss and tokens a second, lines where there is no terminal; stops the run when its time is up."""

    def __init__(self, minutes: float | None) -> None:
        self.limit = None if minutes is None else time.monotonic() + 60 * minutes
        self.tokens_per_second = 0.0
        self._loss = ""
        self._said = -1  # step of the newest line
        console = Console(stderr=True)
        self._lines = not console.is_terminal
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, disable=self._lines)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self._began, self._tokens_before = time.monotonic(), int(state.num_input_tokens_seen)
        self._task = self._bar.add_task("training", total=state.max_steps, completed=state.global_step)
        if isinstance(tuner := getattr(model, "base_model", None), LimeModel):
            tuner.steps = state.global_step
        if state.is_world_process_zero:
            self._bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        seconds = time.monotonic() - self._began
        self.tokens_per_second = (int(state.num_input_tokens_seen) - self._tokens_before) / seconds
        self._bar.update(self._task, completed=state.global_step, description=f"training {self._figures()}")
        if self.limit is not None and distributed.agree(time.monotonic() > self.limit):
            control.should_training_stop = control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        logs = logs or {}
        if "loss" in logs:
            self._loss = f"loss {float(logs['loss']):.3f}, "
            if state.global_step % _LINE_EVERY == 0:
                self._line(state)
        if "eval_loss" in logs and state.is_world_process_zero:
            self._bar.print(f"step {state.global_step}: validation loss {float(logs['eval_loss']):.4f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.stop()
        self._line(state)

    def _figures(self) -> str:
        return f"{self._loss}{self.tokens_per_second:.0f} tokens/s"

    def _line(self, state: Any) -> None:
        """Once for a step, and only where the bar is not drawn."""
        if self._lines and state.is_world_process_zero and state.global_step != self._said:
            self._said = state.global_step
            self._bar.print(f"step {state.global_step}/{state.max_steps}: {self._figures()}", soft_wrap=True)
