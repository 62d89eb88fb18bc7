"""Worker for PEFT on transformers: the plain model and a LoRA, each in float32 and bfloat16.

A step is one forward pass with a DynamicCache under inference_mode, without sampling; a prompt computes the logits of
its last position only, as `generate` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import peft
import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM, DynamicCache

from .worker import Engine, serve


class Peft(Engine):
    """Further settings: ``model`` and ``adapter`` (directories) and ``dtypes``."""

    name = "PEFT"

    def __init__(self, settings: dict[str, Any]) -> None:
        torch.set_num_threads(settings["threads"])
        self._models: dict[str, Any] = {}
        for dtype in settings["dtypes"]:
            for variant, adapter in (("no adapter", None), ("LoRA", settings["adapter"])):
                model: Any = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=getattr(torch, dtype))
                if adapter is not None:
                    model = PeftModel.from_pretrained(model, adapter)
                self._models[f"{variant}, {dtype}"] = model.eval()
        self._caches: dict[str, Any] = {}
        self._logits: dict[str, Any] = {}

    def variants(self) -> dict[str, str]:
        made = (
            f"transformers {transformers.__version__}, PEFT {peft.__version__}, torch {torch.__version__}, "
            "eager; a forward pass without sampling"
        )
        return dict.fromkeys(self._models, made)

    def forget(self, variant: str) -> None:
        self._caches[variant] = DynamicCache()

    @torch.inference_mode()
    def prompt(self, variant: str, ids: Sequence[int]) -> None:
        done = self._models[variant](
            input_ids=torch.tensor([list(ids)]),
            cache=self._caches[variant],
            use_cache=True,
            logits_to_keep=1,
        )
        self._logits[variant] = done.logits[0, -1]

    def step(self, variant: str, token: int) -> None:
        self.prompt(variant, [token])

    def back(self, variant: str, length: int) -> None:
        cache = self._caches[variant]
        cache.crop(length - cache.get_seq_length())  # a negative argument is the number of positions to drop

    def logits(self, variant: str) -> Sequence[float]:
        found: list[float] = self._logits[variant].float().tolist()
        return found


if __name__ == "__main__":
    serve(Peft)
