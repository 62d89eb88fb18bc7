"""Reads the pictures of messages: opens and prepares them, and encodes each once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lime_edge.contract.content_parts import MediaPart, content_faults, media_parts
from lime_edge.contract.vision import VisionContract
from lime_edge.errors import ConfigError, ModelError
from lime_edge.runtime.vision.image_file import image_source
from lime_edge.runtime.vision.prepare import prepare_image, prepare_video, video_as_parts
from lime_edge.runtime.vision.prepared import Prepared
from lime_edge.runtime.vision.video_file import video_source

from .pictures import Picture, Pictures
from .session import Graph, SessionSettings
from .vision_graph import VisionGraph, sees


def open_reader(graph: Graph, settings: SessionSettings, limit: int) -> PictureReader | None:
    """The reader of a model directory; None if its model has no vision graph.

    Args:
        graph: The decoder of the directory.
        settings: How to run the vision graph.
        limit: Maximum bytes of features that are kept after the requests that show them.

    Raises:
        ModelError: The vision graph or vision.json cannot be used.
    """
    if not sees(graph.directory):
        return None
    if graph.pictures is None:
        raise ModelError(f"{graph.directory.path} has a vision graph, but its decoder takes no features: export again")
    graph.pictures.limit = limit
    return PictureReader(VisionGraph(graph.directory, graph, settings), graph.pictures)


class PictureReader:
    """The eyes of one runtime. Safe to use from several threads.

    Args:
        graph: The vision graph.
        pictures: The pictures of the decoder.
    """

    def __init__(self, graph: VisionGraph, pictures: Pictures) -> None:
        self._graph, self._pictures = graph, pictures

    @property
    def contract(self) -> VisionContract:
        """The content of vision.json."""
        return self._graph.contract

    def has_pictures(self, messages: Any) -> bool:
        """Whether messages have a content of parts that are not text alone. (They may be invalid.)"""
        listed = messages if isinstance(messages, list | tuple) else []
        contents = [message.get("content") for message in listed if isinstance(message, Mapping)]
        parts = [part for content in contents if isinstance(content, list | tuple) for part in content]
        return any(isinstance(part, Mapping) and part.get("type") != "text" for part in parts)

    def with_frames(self, messages: Sequence[Any]) -> list[Any]:
        """Messages in which the model's template can place every picture; what is invalid stays as it is.

        Where frames stand in a prompt like pictures, a video becomes its frames and the texts around them.

        Raises:
            ConfigError: A video cannot be read.
        """
        if self.contract.video_token or self.contract.video is None:
            return list(messages)
        return [self._message(message) for message in messages]

    def read(self, part: MediaPart) -> Picture:
        """The picture of a part of a message.

        Raises:
            ConfigError: It cannot be read, or is too large.
            MissingExtraError: Pillow or PyAV is not installed.
            ModelError: The vision graph failed.
        """
        if part.kind == "video":
            video = video_source(part)
            return self._get(f"video {video.digest}", lambda: prepare_video(video.clip(self.contract), self.contract))
        image = image_source(part)
        return self._get(f"image {image.digest}", lambda: prepare_image(image.pixels(), self.contract))

    def _get(self, digest: str, prepare: Any) -> Picture:
        return self._pictures.get(digest, lambda: self._encoded(prepare()))

    def _encoded(self, prepared: Prepared) -> Picture:
        features = prepared.pack(self._graph.run(prepared.arrays))
        if features.shape != (prepared.count, self.contract.features):
            raise ConfigError(
                f"the vision graph gives {list(features.shape)} features; the prompt has {prepared.count} places of "
                f"{self.contract.features} values: export again"
            )
        contract = self.contract
        token = contract.video_token_id if prepared.kind == "video" else contract.image_token_id
        return Picture(features, prepared.pieces, prepared.kind, token, prepared.grid, prepared.interval)

    def _message(self, message: Any) -> Any:
        content = message.get("content") if isinstance(message, Mapping) else None
        if not isinstance(content, list | tuple) or any(True for _ in content_faults(content)):
            return message
        made: list[Any] = []
        for part in content:
            found = media_parts([{"content": [part]}])
            if found and found[0].kind == "video":
                made += video_as_parts(video_source(found[0]).clip(self.contract), self.contract)
            else:
                made.append(part)
        return {**message, "content": made}
