"""The LiME method in torch: configuration, layer, variants, routing, modulation; registered with PEFT.

Importing this room loads torch and PEFT and makes ``peft.get_peft_model(model, LimeConfig())`` work. It does not know
files, skills or training loops. Maths: LiME (arXiv 2604.02338).
"""

from __future__ import annotations

from lime_edge.common.extras import require_extra

with require_extra("train"):
    from peft import PeftType
    from peft.utils import register_peft_method

    from . import prompt_tuning, variants
    from .config import LimeConfig
    from .model import LimeModel

__all__ = ["LimeConfig", "LimeModel", "prompt_tuning", "variants"]  # importing the last two registers the variants


def _register_with_peft() -> None:
    if "LIME" in PeftType.__members__:
        return
    # register_peft_method wants the name in PEFT's enumeration, which has no way to add one.
    member = str.__new__(PeftType, "LIME")
    member._name_ = member._value_ = "LIME"
    PeftType._member_map_["LIME"] = PeftType._value2member_map_["LIME"] = member
    PeftType._member_names_.append("LIME")
    register_peft_method(name="lime", config_cls=LimeConfig, model_cls=LimeModel)


_register_with_peft()
