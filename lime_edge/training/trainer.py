"""One training run on the transformers Trainer: parameter groups, order of rows, checkpoints, resume.

The caller decides which parameters require gradients.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from lime_edge.common.files import check_writable, reason
from lime_edge.errors import ConfigError, DataError
from lime_edge.method import distributed
from lime_edge.method.layer import LimeLayer

from .attention import plain_if_short
from .dataset import Collator, Examples
from .plan import OPTIMIZERS, TrainingPlan
from .progress import ProgressLines

#: Rows with pictures count as equally long within so many tokens. Their prompts are often equal, so that the length of
#: the answer would decide: every step would see answers of one length, that is of one or two classes.
_PICTURE_GRAIN = 16


@contextmanager
def _hub_name_hidden(model: torch.nn.Module) -> Iterator[None]:
    """Hide the backbone's name from PEFT, which otherwise queries the hub for it whenever it saves an adapter."""
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
def _embedding_left_out(model: torch.nn.Module) -> Iterator[None]:
    """Save adapters without the backbone's embedding: PEFT adds it to adapters on it, but it is never trained here."""
    save = getattr(model, "save_pretrained", None)
    if save is not None:
        model.save_pretrained = partial(save, save_embedding_layers=False)  # type: ignore[assignment]
    try:
        yield
    finally:
        if save is not None:
            del model.save_pretrained


def parameter_groups(model: torch.nn.Module, plan: TrainingPlan) -> list[dict[str, Any]]:
    """Optimiser groups of the trainable parameters: a skill's vectors by learning rate, and all others."""
    vectors: dict[float, list[torch.nn.Parameter]] = {}
    for module in model.modules():
        if isinstance(module, LimeLayer):
            for name in (*module.vector_names, "lime_shared", "lime_gate"):
                rate = plan.vector_rate * plan.vector_scales.get(name.removeprefix("lime_"), 1.0)
                free = [p for p in getattr(module, name).values() if p.requires_grad]
                vectors.setdefault(rate, []).extend(free)
    known = {id(p) for group in vectors.values() for p in group}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    groups = [{"params": group, "lr": rate, "weight_decay": 0.0} for rate, group in vectors.items()]
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
        state_dir: Folder for checkpoints of the run (model, optimiser, random state).
        resume: Continue from the newest complete checkpoint in `state_dir`.
        callbacks: Further Trainer callbacks.

    Returns:
        Final figures: ``train_loss``, ``eval_loss`` (if `valid` is given), ``tokens_per_second``, ``steps``.

    Raises:
        DataError: There is no checkpoint to resume from.
        ConfigError: The rows of a step cannot be divided evenly among the processes.
    """
    if plan.batch % distributed.launched():
        count = distributed.launched()
        raise ConfigError(f"batch is {plan.batch} rows for {count} processes; expected a multiple of {count}")
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
    with _hub_name_hidden(model), _embedding_left_out(model):
        result = trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    figures = {"train_loss": float(result.training_loss), "steps": float(trainer.state.global_step)}
    figures["tokens_per_second"] = progress.tokens_per_second
    if valid is not None:
        figures["eval_loss"] = _final_eval_loss(trainer.state) or float(trainer.evaluate()["eval_loss"])
    return figures


def _final_eval_loss(state: TrainerState) -> float | None:
    """The validation loss after the last step, if it was measured then."""
    losses = [log["eval_loss"] for log in state.log_history if "eval_loss" in log and log["step"] == state.global_step]
    return float(losses[-1]) if losses else None


def unwritable(folder: Path) -> list[str]:
    """The reason why nothing can be written to a folder that may not exist yet, if there is one; creates nothing."""
    try:
        check_writable(folder)
        str(folder).encode()  # safetensors takes no other names
    except (OSError, UnicodeEncodeError) as error:
        return [f"nothing can be written to {folder}: {reason(error)}"]
    return []


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
    arguments._n_gpu = min(1, arguments.n_gpu)  # DataParallel would copy the layers, but not their ForwardState
    return arguments


def lengths_of(examples: Any) -> list[int]:
    """Lengths by which rows are put into steps: tokens, or with pictures multiples of `_PICTURE_GRAIN`."""
    grain = _PICTURE_GRAIN if any(item["example"].pictures for item in examples) else 1
    return [len(item["input_ids"]) // grain for item in examples]


class _Trainer(Trainer):
    """A Trainer with plain attention in short steps and rows in the order of `_Order`."""

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        with plain_if_short(self.model, inputs["input_ids"]):
            return super().training_step(model, inputs, num_items_in_batch)

    def _get_train_sampler(self, train_dataset: Any = None) -> _Order:
        examples: Any = self.train_dataset if train_dataset is None else train_dataset
        batch = self.args.train_batch_size * distributed.launched()
        return _Order(lengths_of(examples), batch, self.args.seed)


class _Order(LengthGroupedSampler):
    """Batches rows of similar length; the order depends on seed and epoch alone, so a resumed run repeats it.

    The last step of an epoch is filled up with the epoch's first rows, whatever the number of processes.
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


def resumable(state_dir: Path) -> bool:
    """Whether there is a checkpoint to resume from."""
    return _newest(state_dir) is not None


def _newest(state_dir: Path) -> Path | None:
    """The newest complete checkpoint: the Trainer writes trainer_state.json last."""
    complete = [path.parent for path in state_dir.glob("checkpoint-*/trainer_state.json") if _is_json(path)]
    return max(complete, key=lambda path: int(path.name.split("-")[-1]), default=None)


def _is_json(path: Path) -> bool:
    """Whether a file is valid JSON; a run killed while it wrote leaves a truncated one."""
    try:
        json.loads(path.read_text("utf-8"))
    except ValueError:
        return False
    return True
