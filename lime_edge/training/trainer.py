"""One training run, on the transformers Trainer: groups of parameters, progress, time limit, resume.

Knows nothing of what is trained: `train` and `learn` decide which parameters are free.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from lime_edge.errors import ConfigError, DataError
from lime_edge.method import distributed
from lime_edge.method.layer import LimeLayer

from .attention import plain_if_short
from .dataset import Collator, Examples
from .plan import OPTIMIZERS, TrainingPlan
from .progress import ProgressLines, _evaluated


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


def parameter_groups(model: torch.nn.Module, plan: TrainingPlan) -> list[dict[str, Any]]:
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
    plan: TrainingPlan,
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
    progress = ProgressLines(plan.minutes)
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


def _arguments(plan: TrainingPlan, state_dir: Path, evaluate: bool) -> TrainingArguments:
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
