"""Progress of a training run on standard error, and its time limit."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

from lime_edge.method import distributed
from lime_edge.method.model import LimeModel

LINE_EVERY = 20  # steps between lines where no terminal can show a bar


class ProgressLines(TrainerCallback):
    """Shows loss and tokens per second, as a bar on a terminal, else as lines; stops the run at its time limit."""

    def __init__(self, minutes: float | None) -> None:
        self.limit = None if minutes is None else time.monotonic() + 60 * minutes
        self.tokens_per_second = 0.0
        self._loss = ""
        self._printed = -1  # step of the newest line
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
            if state.global_step % LINE_EVERY == 0:
                self._line(state)
        if "eval_loss" in logs and state.is_world_process_zero:
            self._bar.print(f"step {state.global_step}: validation loss {float(logs['eval_loss']):.4f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._bar.stop()
        self._line(state)

    def _figures(self) -> str:
        return f"{self._loss}{self.tokens_per_second:.0f} tokens/s"

    def _line(self, state: Any) -> None:
        """Print a line, at most one per step, and none where a bar is shown."""
        if self._lines and state.is_world_process_zero and state.global_step != self._printed:
            self._printed = state.global_step
            self._bar.print(f"step {state.global_step}/{state.max_steps}: {self._figures()}", soft_wrap=True)
