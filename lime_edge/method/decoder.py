"""Where the language model stands in a model: adapters belong there, and in towers only where these are named.

Names alone are not safe: `q_proj` and `up_proj` are also names in the towers of SigLIP, CLIP and Qwen2-VL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn


def has_towers(model: nn.Module) -> bool:
    """Whether a model has other parts than a language model: it makes features of pictures."""
    return hasattr(model, "get_image_features") and hasattr(model, "get_decoder")


def decoder_name(model: nn.Module) -> str:
    """The name of the language model inside a model with towers, like ``model.language_model``; else "".

    Adapters are searched below it.
    """
    if not has_towers(model):
        return ""
    whole: Any = model
    decoder = whole.get_decoder()
    return str(next(name for name, module in model.named_modules() if module is decoder))


def allowed(name: str, decoder: str, towers: Sequence[str]) -> bool:
    """Whether the module `name` may be adapted: it is in the decoder, or in one of the named towers."""
    return any(not part or name == part or name.startswith(f"{part}.") for part in (decoder, *towers))


def in_tower(name: str, decoder: str) -> bool:
    """Whether a module is outside of the decoder."""
    return not allowed(name, decoder, ())
