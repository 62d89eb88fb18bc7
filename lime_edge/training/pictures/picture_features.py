"""Features of the pictures of rows: a frozen tower computes each of them once, and a cache on disk keeps them.

Pictures are prepared with the code of the runtime. The tower runs in float32, whatever the language model does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lime_edge.common.digests import canonical_json, tensor_digest
from lime_edge.common.paths import cache_dir
from lime_edge.contract.content_parts import MediaPart, media_parts
from lime_edge.contract.conversation import Chat
from lime_edge.exporters.towers.contracts import FAMILIES, family_name, vision_contract
from lime_edge.runtime.vision.image_file import image_source
from lime_edge.runtime.vision.placement import place, placeholders, positions
from lime_edge.runtime.vision.prepare import prepare_image, prepare_video, video_as_parts
from lime_edge.runtime.vision.prepared import Prepared
from lime_edge.runtime.vision.video_file import video_source

from .frozen_tower import FeatureFiles, FrozenTower

FOLDER = "features"  # in the cache


@dataclass(frozen=True)
class Pictures:
    """The pictures of a prompt.

    Attributes:
        places: For each token of the prompt the index of its feature; -1 is text.
        features: Features of all pictures of the prompt, [F, H].
        positions: Positions of the prompt's tokens in three dimensions, [3, P], for models that have such; else None.
        delta: Difference between position and index of every later token.
    """

    places: tuple[int, ...]
    features: torch.Tensor
    positions: torch.Tensor | None = None
    delta: int = 0


@dataclass(frozen=True)
class _Seen:
    """A picture or clip with its features."""

    prepared: Prepared
    features: torch.Tensor  # [F, H]


class PictureFeatures:
    """Prepares the pictures of conversations for one model.

    Args:
        model: The transformers model, frozen; its tower in float32.
        directory: Its directory.
    """

    def __init__(self, model: Any, directory: Path) -> None:
        self.contract = vision_contract(directory)
        family = FAMILIES[family_name(directory)]
        self._tower = FrozenTower(model, family, self.contract)
        self._files: FeatureFiles | None = None
        self._seen: dict[str, _Seen] = {}

    @property
    def placeholders(self) -> dict[str, int]:
        """The token that the chat template writes for each kind of picture."""
        return placeholders(self.contract)

    def encode(
        self, chat: Chat, messages: Sequence[Mapping[str, Any]], system: str | None
    ) -> tuple[list[int], int, Pictures]:
        """Token ids of a conversation with pictures, the start of the answer's turn, and the pictures.

        Raises:
            ConfigError: A picture cannot be read, or the conversation is invalid.
        """
        shown = [self._with_frames(message) for message in messages]
        ids, start = chat.prompt(shown, system)
        seen = [self._look(part) for part in media_parts(shown)]
        prepared = [one.prepared for one in seen]
        placed = place(ids, start, prepared, self.contract, chat.special)
        features = torch.cat([one.features for one in seen])
        pictures = Pictures(tuple(placed.feature_ids.tolist()), features)
        if self.contract.rotary_3d:
            spatial, delta = positions(placed, prepared)
            pictures = replace(pictures, positions=torch.from_numpy(spatial), delta=delta)
        return placed.ids.tolist(), placed.boundary, pictures

    def _with_frames(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The message with videos as pictures, for models without a token for videos."""
        content = message["content"]
        if isinstance(content, str) or self.contract.video_token:
            return dict(message)
        parts: list[Any] = []
        for part in content:
            videos = [one for one in media_parts([{"content": [part]}]) if one.kind == "video"]
            parts += video_as_parts(video_source(videos[0]).clip(self.contract), self.contract) if videos else [part]
        return {**message, "content": parts}

    def _look(self, part: MediaPart) -> _Seen:
        source: Any = image_source(part) if part.kind == "image" else video_source(part)
        if source.digest not in self._seen:
            if part.kind == "image":
                prepared = prepare_image(source.pixels(), self.contract)
            else:
                prepared = prepare_video(source.clip(self.contract), self.contract)
            features = self._features(source.digest, prepared)
            self._seen[source.digest] = _Seen(replace(prepared, arrays={}), features)
        return self._seen[source.digest]

    def _features(self, digest: str, prepared: Prepared) -> torch.Tensor:
        if self._files is None:
            self._files = FeatureFiles(cache_dir() / FOLDER / self._identity())
        found = self._files.read(digest)
        if found is None:
            found = prepared.pack(self._tower.run(prepared.arrays))
            self._files.write(digest, found)
        return torch.from_numpy(np.asarray(found, np.float32))

    def _identity(self) -> str:
        """Digest of what features depend on besides the picture: the tower and its contract."""
        return tensor_digest(self._tower.weights(), canonical_json(asdict(self.contract)))
