"""PEFT's own methods, unmodified, at the sizes of the comparison.

Shapes: B rows, S tokens, n virtual tokens, D hidden size.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftConfig,
    PromptTuningConfig,
    RoadConfig,
    TaskType,
    VeraConfig,
    get_peft_model,
)
from torch import Tensor, nn

_VIRTUAL = 20  # virtual tokens of prompt tuning: 20 * 3584 is the 0.07M of LiME's comparison
_VERA_RANK = 256  # PEFT's default, and the paper's


def config(name: str, targets: Sequence[str], rank: int, scaling: float) -> PeftConfig:
    """PEFT's configuration of a method, by its name in the comparison.

    IA3 scales k, v and the inner values of the feed-forward block, as in its paper (arXiv 2205.05638); prompt tuning
    adapts no module; the others adapt `targets`.
    """
    common: dict[str, Any] = {"task_type": TaskType.CAUSAL_LM}
    adapted = {**common, "target_modules": list(targets)}
    low_rank = {**adapted, "r": rank, "lora_alpha": scaling * rank}
    made: dict[str, PeftConfig] = {
        "lora": LoraConfig(**low_rank),
        "dora": LoraConfig(**low_rank, use_dora=True),
        "vera": VeraConfig(**adapted, r=_VERA_RANK),
        "road": RoadConfig(**adapted, group_size=32),  # group_size must divide every width
        "prompt": PromptTuningConfig(**common, num_virtual_tokens=_VIRTUAL),
        "ia3": IA3Config(**common, target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    }
    return made[name]


def wrap(backbone: Any, name: str, targets: Sequence[str], rank: int, scaling: float) -> nn.Module:
    """The backbone with PEFT's adapters."""
    with warnings.catch_warnings():  # PEFT uses an attribute that transformers has deprecated
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        model: nn.Module = get_peft_model(backbone, config(name, targets, rank, scaling))
    return SoftPrompt(model) if name == "prompt" else model


class SoftPrompt(nn.Module):
    """PEFT's prompt tuning with the forward of a plain causal model, including cached and padded calls.

    PEFT's own forward prepends the prompt to every call, cached steps included, and computes all logits. Here the same
    virtual tokens are prepended once, before a row's padding, which is masked.

    Args:
        model: From `get_peft_model`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.count = int(model.active_peft_config.num_virtual_tokens)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        cache: Any = None,
        logits_to_keep: Tensor | None = None,
        **others: Any,
    ) -> Any:
        """Like a causal model's forward; `logits_to_keep` and labels do not count virtual tokens."""
        base = self.model.get_base_model()
        embeds = base.get_input_embeddings()(input_ids)  # [B, S, D]
        mask = torch.cat([attention_mask.new_ones(len(attention_mask), self.count), attention_mask], 1)
        places = position_ids + self.count
        keep = torch.arange(input_ids.shape[1]) if logits_to_keep is None else logits_to_keep
        if cache is None or cache.get_seq_length() == 0:
            prompt = self.model.get_prompt(batch_size=len(input_ids)).to(embeds.dtype)
            embeds = torch.cat([prompt, embeds], 1)
            places = torch.cat([torch.arange(self.count).expand(len(places), -1), places], 1)
            keep = keep + self.count
        return base(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=places,
            cache=cache,
            logits_to_keep=keep,
            **others,
        )
