"""Qwen2-VL and Qwen2.5-VL: patches of pictures of any size, which see those of the same frame (and window).

transformers splits the patches by frames and windows; the graph masks one product instead. What patches belong
together, and the order of windows, is computed by the caller.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lime_edge.contract.names import PATCH_POSITIONS, PIXEL_VALUES, SEGMENT_IDS, WINDOW_IDS
from lime_edge.contract.vision import FRAME_LIMIT, Patches, Video, VisionContract

from .settings import Settings
from .tower_family import Probe, TowerFamily

TILE_FEATURES = 1280  # what `tiles` of these families counts: the features of transformers' default limit
_FPS, _LEAST_FRAMES, _MOST_FRAMES = 2.0, 4, FRAME_LIMIT  # of Qwen's own video reader


def contract(settings: Settings) -> VisionContract:
    """Patches of a picture that is resized to between least and most pixels."""
    config, image = settings.config, settings.image
    patch, merge = image.patch_size, image.merge_size
    cap = settings.tiles * TILE_FEATURES * (patch * merge) ** 2
    most = min(image.size.longest_edge, cap)
    return VisionContract(
        family=config.model_type,
        features=config.text_config.hidden_size,
        image_token=settings.token(config.image_token_id),
        image_token_id=config.image_token_id,
        pixels=settings.pixels(),
        patches=Patches(
            patch=patch,
            merge=merge,
            temporal=image.temporal_patch_size,
            least_pixels=min(image.size.shortest_edge, most),
            most_pixels=most,
            window=getattr(config.vision_config, "window_size", 0) if config.model_type == "qwen2_5_vl" else 0,
        ),
        video=_video(settings, patch * merge, cap),
        video_token=settings.token(config.video_token_id),
        video_token_id=config.video_token_id,
    )


def _video(settings: Settings, unit: int, cap: int) -> Video:
    """Frames and their pixels; where the checkpoint says nothing, as transformers' video processor has them."""
    given = settings.video
    size = given.get("size") or {}
    least = int(given.get("min_pixels") or size.get("shortest_edge") or 128 * unit**2)
    most = min(int(given.get("max_pixels") or size.get("longest_edge") or 768 * unit**2), cap)
    frames = min(settings.frames, int(given.get("max_frames") or _MOST_FRAMES))
    return Video(
        frames=frames,
        fps=float(given.get("fps") or _FPS),
        least_frames=min(int(given.get("min_frames") or _LEAST_FRAMES), frames),
        least_pixels=min(least, most),
        most_pixels=most,
        tokens_per_second=float(getattr(settings.config.vision_config, "tokens_per_second", 0) or 0),
    )


class Tower(torch.nn.Module):
    """Patches [N, values], positions [N, 2] and segments [N] (and windows [N]) -> [N / merge^2, H]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.visual = model.model.visual
        kernel = self.visual.patch_embed.proj.weight
        self.kernel = torch.nn.Parameter(kernel.detach().flatten(1), requires_grad=False)  # [E, values]
        self.whole = set(getattr(self.visual, "fullatt_block_indexes", range(len(self.visual.blocks))))

    def forward(
        self, pixel_values: Tensor, positions: Tensor, segment_ids: Tensor, window_ids: Tensor | None = None
    ) -> Tensor:
        hidden = functional.linear(pixel_values, self.kernel)
        rotation = self.visual.rotary_pos_emb(hidden, positions)
        segments = _same(segment_ids)
        windows = segments if window_ids is None else segments & _same(window_ids)
        for number, block in enumerate(self.visual.blocks):
            mask = segments if number in self.whole else windows
            hidden = hidden + _attention(block.attn, block.norm1(hidden), rotation, mask)
            hidden = hidden + block.mlp(block.norm2(hidden))
        out: Tensor = self.visual.merger(hidden)
        return out


def _same(ids: Tensor) -> Tensor:
    """Which patches have the same id, [N, N]."""
    return ids[:, None] == ids[None]


def _attention(layer: Any, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    """Attention of all patches at once, each to those that the mask [N, N] lets it see."""
    q, k, v = layer.qkv(x).reshape(len(x), 3, layer.num_heads, -1).permute(1, 2, 0, 3).unbind(0)  # [heads, N, d]
    cos, sin = rotation
    q, k = (part * cos + _turned(part) * sin for part in (q, k))
    seen = functional.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask[None, None])[0]
    out: Tensor = layer.proj(seen.transpose(0, 1).reshape(len(x), -1))
    return out


def _turned(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)


def probe(model: Any, contract: VisionContract) -> Probe:
    """Two pictures one window wide, whose patches are already in the order of windows."""
    assert contract.patches is not None  # the family has patches
    cut = contract.patches
    side = max(cut.window // cut.patch // cut.merge, 1) * cut.merge  # patches along a window
    grids = [(1, 2 * side, side), (1, side, side)]
    count = sum(h * w for _, h, w in grids)
    values = 3 * cut.temporal * cut.patch**2
    pixels = np.random.default_rng(0).standard_normal((count, values), np.float32)
    arrays = {
        PIXEL_VALUES: pixels,
        PATCH_POSITIONS: np.concatenate([_positions(h, w, cut.merge) for _, h, w in grids]),
        SEGMENT_IDS: np.repeat(np.arange(len(grids)), [h * w for _, h, w in grids]),
        WINDOW_IDS: np.arange(count) // side**2,
    }
    if not cut.window:
        del arrays[WINDOW_IDS]
    given = {"pixel_values": torch.from_numpy(pixels), "image_grid_thw": torch.tensor(grids)}
    return Probe(arrays, given)


def _positions(height: int, width: int, merge: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Row and column of every patch of a picture in patches, those of one feature side by side, [N, 2]."""
    at = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1)
    blocks = at.reshape(height // merge, merge, width // merge, merge, 2).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(blocks.reshape(-1, 2))


_INPUTS = (PIXEL_VALUES, PATCH_POSITIONS, SEGMENT_IDS)
QWEN2 = TowerFamily(("Qwen2VLImageProcessor",), contract, Tower, probe, _INPUTS, divisor=4)
QWEN2_5 = TowerFamily(("Qwen2VLImageProcessor",), contract, Tower, probe, (*_INPUTS, WINDOW_IDS), divisor=4)
