"""EfficientNet-Lite0 without its classifier: [N, 3, 224, 224] pixels to 7 x 7 features of 1280 channels.

Layout: "Higher accuracy on vision models with EfficientNet-Lite" (TensorFlow blog, 2020), which takes
squeeze-and-excitation out of EfficientNet-B0 (arXiv 1905.11946) and replaces swish by ReLU6. Batch normalisation is
folded into the convolutions, so the tower is for inference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = 1280
GRID = 7  # features along each side of an image of SIZE pixels
SIZE = 224  # pixels
_EPSILON = 1e-3  # of the published batch normalisation


class _Stage(NamedTuple):
    """Blocks of equal width; the first of them has the stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STEM = 32
_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


class _Convolution(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: of an odd number of pixels, right and bottom get one more."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, depthwise: bool = False) -> None:
        groups = inputs if depthwise else 1
        super().__init__(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, groups=groups)
        self._uneven = stride == 2

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H / stride, W / stride]; H and W are even where the stride is 2."""
        if not self._uneven:
            return super().forward(x)
        before = (self.kernel_size[0] - 2) // 2
        x = F.pad(x, (before, self.kernel_size[0] - 2 - before) * 2)
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class _Block(nn.Module):
    """An inverted residual block (arXiv 1801.04381): expand, filter each channel, project."""

    def __init__(self, inputs: int, stage: _Stage, stride: int) -> None:
        super().__init__()
        inner = inputs * stage.expansion
        self.expand = _Convolution(inputs, inner) if stage.expansion > 1 else None
        self.depthwise = _Convolution(inner, inner, stage.kernel, stride, depthwise=True)
        self.project = _Convolution(inner, stage.channels)
        self._residual = stride == 1 and inputs == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H / stride, W / stride]."""
        inner = x if self.expand is None else F.relu6(self.expand(x))
        out: Tensor = self.project(F.relu6(self.depthwise(inner)))
        return x + out if self._residual else out


class EfficientNetLite(nn.Module):
    """The tower: stem, 16 blocks, head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Convolution(3, _STEM, 3, 2)
        width, blocks = _STEM, []
        for stage in _STAGES:
            for number in range(stage.blocks):
                blocks.append(_Block(width, stage, stage.stride if number == 0 else 1))
                width = stage.channels
        self.blocks = nn.ModuleList(blocks)
        self.head = _Convolution(width, CHANNELS)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features of pixels in [-1, 1]: [N, 3, 224, 224] -> [N, 1280, 7, 7]."""
        x = F.relu6(self.stem(pixels))
        for block in self.blocks:
            x = block(x)
        return F.relu6(self.head(x))


def from_published(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of an `EfficientNetLite` from the published one, with batch normalisation folded in.

    Args:
        weights: Tensors by their published names, such as ``_blocks.0._depthwise_conv.weight``.

    Raises:
        KeyError: A tensor is missing.
    """
    state: dict[str, Tensor] = {}
    for name, convolution, norm in _names():
        scale = weights[f"{norm}.weight"] * torch.rsqrt(weights[f"{norm}.running_var"] + _EPSILON)  # [C']
        state[f"{name}.weight"] = weights[f"{convolution}.weight"] * scale[:, None, None, None]
        state[f"{name}.bias"] = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
    return state


def _names() -> Iterator[tuple[str, str, str]]:
    """Ours, and the published names of the convolution and of the batch normalisation after it."""
    yield "stem", "_conv_stem", "_bn0"
    expands = [stage.expansion > 1 for stage in _STAGES for _ in range(stage.blocks)]
    for number, expanded in enumerate(expands):
        if expanded:
            yield f"blocks.{number}.expand", f"_blocks.{number}._expand_conv", f"_blocks.{number}._bn0"
        yield f"blocks.{number}.depthwise", f"_blocks.{number}._depthwise_conv", f"_blocks.{number}._bn1"
        yield f"blocks.{number}.project", f"_blocks.{number}._project_conv", f"_blocks.{number}._bn2"
    yield "head", "_conv_head", "_bn1"
