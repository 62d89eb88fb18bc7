"""The tower: folding of batch normalisation, TensorFlow's padding, shapes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lime_edge.backbones.efficientnet_lite import CHANNELS, GRID, SIZE, EfficientNetLite, _names, from_published


def published(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights by their published names, in the shapes of a tower."""
    draw = torch.Generator().manual_seed(seed)
    tower = EfficientNetLite().state_dict()
    weights = {}
    for name, convolution, norm in _names():
        shape = tower[f"{name}.weight"].shape
        weights[f"{convolution}.weight"] = torch.randn(shape, generator=draw) / shape[1:].numel() ** 0.5
        for key in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{norm}.{key}"] = 0.5 + torch.rand(shape[0], generator=draw)
    return weights


def same(x: torch.Tensor, kernel: torch.Tensor, stride: int, groups: int) -> torch.Tensor:
    """A convolution padded as TensorFlow defines "same", from the definition."""
    size = x.shape[-1]
    total = max((-(-size // stride) - 1) * stride + kernel.shape[-1] - size, 0)
    x = F.pad(x, (total // 2, total - total // 2) * 2)
    return F.conv2d(x, kernel, stride=stride, groups=groups)


def reference(weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """EfficientNet-Lite0 as published, with separate batch normalisation."""

    def normed(x: torch.Tensor, name: str) -> torch.Tensor:
        w, b, mean, var = (weights[f"{name}.{key}"] for key in ("weight", "bias", "running_mean", "running_var"))
        return F.batch_norm(x, mean, var, w, b, eps=1e-3)

    x = F.relu6(normed(same(x, weights["_conv_stem.weight"], 2, 1), "_bn0"))
    strides = {1: 2, 3: 2, 5: 2, 11: 2}
    for number in range(16):
        at, before = f"_blocks.{number}", x
        if f"{at}._expand_conv.weight" in weights:
            x = F.relu6(normed(same(x, weights[f"{at}._expand_conv.weight"], 1, 1), f"{at}._bn0"))
        x = same(x, weights[f"{at}._depthwise_conv.weight"], strides.get(number, 1), x.shape[1])
        x = F.relu6(normed(x, f"{at}._bn1"))
        x = normed(same(x, weights[f"{at}._project_conv.weight"], 1, 1), f"{at}._bn2")
        x = x + before if x.shape == before.shape else x
    return F.relu6(normed(same(x, weights["_conv_head.weight"], 1, 1), "_bn1"))


def test_the_tower_with_folded_weights_equals_the_published_layout() -> None:
    weights = published()
    tower = EfficientNetLite().eval()
    tower.load_state_dict(from_published(weights))
    pixels = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, wanted = tower(pixels), reference(weights, pixels)
    assert found.shape == (2, CHANNELS, GRID, GRID)
    assert wanted.std() > 0.01
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


def test_a_missing_tensor_is_named() -> None:
    weights = published()
    del weights["_blocks.7._bn1.bias"]
    with pytest.raises(KeyError, match=r"_blocks\.7\._bn1\.bias"):
        from_published(weights)
