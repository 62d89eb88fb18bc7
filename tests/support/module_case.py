"""A small denoiser (tokens, pictures in rows and columns, and a time step), its export and a skill, made once."""

from __future__ import annotations

import atexit
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import peft
import torch
from torch import Tensor, nn
from torch.nn import functional

from lime_edge.contract.routing import Routing
from lime_edge.method import LimeConfig
from lime_edge.training import checkpoint
from lime_edge.training.module_skills import export_module, write_skill

Array = npt.NDArray[Any]
WIDTH = 32
TARGETS = ["time", "mix", "q", "out"]

_FOLDER = tempfile.TemporaryDirectory()
atexit.register(_FOLDER.cleanup)


class Denoiser(nn.Module):
    """A diffusion transformer of one block: [B, height, width, 4] and time [B, 4] -> noise, and a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(4, WIDTH)  # [B, D]
        self.mix = nn.Linear(4, WIDTH)  # [B, height, width, D]
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))  # [B, S, D]
        self.out = nn.Linear(WIDTH, 4)

    def forward(self, picture: Tensor, step: Tensor) -> dict[str, Tensor]:
        hidden = self.mix(picture) + self.time(functional.silu(step))[:, None, None]
        tokens = hidden.flatten(1, 2)
        q, k, v = (layer(tokens)[:, None] for layer in (self.q, self.k, self.v))  # one head
        seen = functional.scaled_dot_product_attention(q, k, v)[:, 0]
        noise = self.out(functional.gelu(tokens + seen)).reshape(picture.shape)
        return {"noise": noise, "mean": noise.mean((1, 2))}


def inputs(rows: int = 3, seed: int = 0, side: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    picture = torch.randn(rows, side, side, 4, generator=generator)
    return {"picture": picture, "step": torch.randn(rows, 4, generator=generator)}


def wrapped(experts: int = 2, **config: Any) -> Any:
    """The denoiser with LiME layers, whose parameters are all random."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"target_modules": TARGETS, "r": 4, "routing": Routing(experts=experts), **config}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(Denoiser().eval(), LimeConfig(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def outputs(model: Any, given: dict[str, Tensor]) -> dict[str, Array]:
    with torch.no_grad():
        return {name: value.numpy() for name, value in model(**given).items()}


@cache
def made() -> tuple[Path, Path, Any]:
    """The export, a skill, and the wrapped model with the skill's (quantised) vectors; tests must not change them."""
    folder, model = Path(_FOLDER.name), wrapped()
    export_module(model, inputs(), folder / "model")
    skill = write_skill(model, folder / "style.lime", "style", description="A style", license="CC0-1.0")
    checkpoint.set_vectors(model, skill.tensors)
    return folder / "model", folder / "style.lime", model


def numbers(given: dict[str, Tensor]) -> dict[str, Array]:
    return {name: tensor.numpy() for name, tensor in given.items()}


def close(found: Array, expected: Array) -> bool:
    return bool(np.allclose(found, expected, atol=1e-5 * max(1.0, float(np.abs(expected).max()))))
