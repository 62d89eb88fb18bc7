"""The LiME method in torch: configuration, layer, variants, routing, modulation; registered with PEFT.

Importing this room loads torch and PEFT and makes ``peft.get_peft_model(model, LimeConfig())`` work. It does not know
files, skill packages or training loops. Maths: LiME (arXiv 2604.02338).
"""

from __future__ import annotations

from lime_edge.common.extras import require_extra

with require_extra("train"):
    import torch  # noqa: F401  # before peft: without torch, transformers prints a warning of its own
    from peft import PeftType
    from peft.utils import register_peft_method

    from . import prompt_tuning, variants
    from .config import LimeConfig
    from .model import LimeModel

__all__ = ["LimeConfig", "LimeModel", "prompt_tuning", "variants"]  # the last two register the variants on import


def _register_with_peft() -> None:
    if "LIME" in PeftType.__members__:
        return
    # register_peft_method requires a member of PeftType, an enumeration that cannot be extended officially.
    member = str.__new__(PeftType, "LIME")
    member._name_ = member._value_ = "LIME"
    PeftType._member_map_["LIME"] = PeftType._value2member_map_["LIME"] = member
    PeftType._member_names_.append("LIME")
    register_peft_method(name="lime", config_cls=LimeConfig, model_cls=LimeModel)


_register_with_peft()
