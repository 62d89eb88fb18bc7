"""Opens videos: untrusted files, or frames given one by one, of which some are chosen, within bounds."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lime_edge.common.extras import require_extra
from lime_edge.common.strict_json import show
from lime_edge.contract.content_parts import FRAMES_LIMIT, MediaPart
from lime_edge.contract.vision import VisionContract
from lime_edge.errors import ConfigError

from .frame_choice import chosen_frames
from .image_file import PIXEL_LIMIT, SIDES_LIMIT, ImageSource, Pixels, checked_pixels, image_source, read_file

FILE_LIMIT = 2**28  # bytes
FRAME_PIXELS = 2**28  # of all chosen frames together
DECODED_LIMIT = 2**15  # frames that are decoded to find those that were chosen
_UNKNOWN_FPS = 24.0  # of frames that are given one by one, as in transformers

#: What FFmpeg may open: files of their own. (Playlists and others name further files and addresses.)
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,ogg,flv"
_CODECS = "h264,hevc,vp8,vp9,av1,libdav1d,libvpx-vp9,libvpx,mpeg4,mpeg2video,mpeg1video,mjpeg,gif,theora,h263,png,flv"


@dataclass(frozen=True)
class Clip:
    """The chosen frames of a video.

    Attributes:
        frames: [H, W, 3] each, all of one size.
        seconds: When each is shown.
        duration: Of the video, in seconds.
        step: Seconds from one chosen frame to the next, on average.
    """

    frames: tuple[Pixels, ...]
    seconds: tuple[float, ...]
    duration: float
    step: float


@dataclass(frozen=True)
class VideoSource:
    """A video that is decoded when its frames are needed.

    Attributes:
        digest: SHA-256 of the file's bytes, or of the frames. Equal digests are equal videos.
    """

    digest: str
    _decode: Callable[[VisionContract], Clip] = field(repr=False, compare=False)

    def clip(self, contract: VisionContract) -> Clip:
        """The frames that a model sees.

        Raises:
            ConfigError: It is no video, damaged, too large, or the model takes none.
            MissingExtraError: PyAV is not installed; frames need it not.
        """
        if contract.video is None:
            raise ConfigError("this model takes no videos: show frames as images")
        return self._decode(contract)


def video_source(part: MediaPart) -> VideoSource:
    """A video from a part of a message.

    Raises:
        ConfigError: The file cannot be read, or the object is no video.
    """
    if part.form == "path":
        name = show(part.value)
        data = read_file(part.value, FILE_LIMIT, name)
        return VideoSource(_digest(b"file", data), lambda contract: _decoded(data, contract, name))
    if part.form == "bytes":
        data = part.value
        return VideoSource(_digest(b"file", data), lambda contract: _decoded(data, contract, "the video"))
    if part.form == "frames":
        sources = [image_source(one, f"frame {number}") for number, one in enumerate(part.value)]
        digest = _digest(b"frames", "".join(one.digest for one in sources).encode())
        return VideoSource(digest, lambda contract: _of_frames(sources, contract))
    return _of_array(part.value)


def _of_array(value: Any) -> VideoSource:
    if not isinstance(value, np.ndarray) or value.ndim != 4 or not 1 <= len(value) <= FRAMES_LIMIT:
        found = f"an array {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
        raise ConfigError(f"the video is {found}; expected a path, bytes, or uint8 [1 to {FRAMES_LIMIT}, H, W, 3]")
    frames = [checked_pixels(frame, f"frame {number}").copy() for number, frame in enumerate(value)]
    digest = _digest(f"array {value.shape}".encode(), value.tobytes())
    return VideoSource(digest, lambda contract: _of_frames(frames, contract))


def _of_frames(frames: Sequence[Pixels | ImageSource], contract: VisionContract) -> Clip:
    """All frames that were given one by one."""
    assert contract.video is not None  # checked by the caller
    if len(frames) > contract.video.frames:
        most = contract.video.frames
        raise ConfigError(f"the video has {len(frames)} frames; expected at most {most}: leave some out")
    first = frames[0].pixels() if isinstance(frames[0], ImageSource) else frames[0]
    _check_total(first.shape[0] * first.shape[1], len(frames), "the video")
    decoded = tuple(one.pixels() if isinstance(one, ImageSource) else one for one in frames)
    sizes = {frame.shape for frame in decoded}
    if len(sizes) > 1:
        found = ", ".join(sorted(f"{shape[1]} x {shape[0]}" for shape in sizes)[:4])
        raise ConfigError(f"the frames of the video have different sizes: {found}; expected one")
    seconds = tuple(number / _UNKNOWN_FPS for number in range(len(frames)))
    return Clip(decoded, seconds, seconds[-1], 1 / _UNKNOWN_FPS)


def _decoded(data: bytes, contract: VisionContract, name: str) -> Clip:
    with require_extra("video"):
        import av
    try:
        options = {"format_whitelist": _CONTAINERS, "codec_whitelist": _CODECS, "protocol_whitelist": "file"}
        with av.open(io.BytesIO(data), options=options, metadata_errors="ignore") as container:
            return _chosen(container, contract, name)
    except ConfigError:
        raise
    except MemoryError as error:
        raise ConfigError(f"{name} does not fit into memory") from error
    except Exception as error:  # PyAV's errors have several bases
        raise ConfigError(f"{name} is no video that can be read: {show(str(error))}") from error


def _chosen(container: Any, contract: VisionContract, name: str) -> Clip:
    if not container.streams.video:
        raise ConfigError(f"{name} has no pictures; expected a video")
    stream = container.streams.video[0]
    stream.thread_type = "NONE"  # other threads of this process have work of their own
    size = (stream.codec_context.width, stream.codec_context.height)
    _check_size(*size, name)
    count = _frame_count(container, stream)
    rate = float(stream.average_rate or stream.guessed_rate or _UNKNOWN_FPS)
    if not math.isfinite(rate) or not 0 < rate <= 1000:
        rate = _UNKNOWN_FPS
    assert contract.video is not None  # checked by the caller
    if count > DECODED_LIMIT:
        raise ConfigError(f"{name} has more than {DECODED_LIMIT:,} frames: cut it, or give frames")
    wanted = chosen_frames(count, rate, contract)
    frames, shown = _decode_until(container, stream, wanted, name)
    if not frames:
        raise ConfigError(f"{name} has no frame that can be decoded")
    total = max(count, shown[-1] + 1)
    return Clip(tuple(frames), tuple(at / rate for at in shown), total / rate, total / rate / len(frames))


def _frame_count(container: Any, stream: Any) -> int:
    """Number of frames by counting packets: headers can say anything."""
    count = 0
    for packet in container.demux(stream):
        count += packet.size > 0
        if count > DECODED_LIMIT:
            break
    container.seek(0)
    return max(count, 1)


def _decode_until(container: Any, stream: Any, wanted: Sequence[int], name: str) -> tuple[list[Pixels], list[int]]:
    """The frames with these numbers, as far as there are that many, and their numbers."""
    waiting, frames, shown = list(dict.fromkeys(wanted))[::-1], [], []
    for number, frame in enumerate(container.decode(stream)):
        _check_size(frame.width, frame.height, name)
        if number == waiting[-1]:
            _check_total(frame.width * frame.height, len(wanted), name)
            frames.append(np.ascontiguousarray(frame.to_ndarray(format="rgb24")))
            shown.append(waiting.pop())
        if not waiting:
            break
    if len({frame.shape for frame in frames}) > 1:
        raise ConfigError(f"{name} changes its size; expected one size")
    return frames, shown


def _check_size(width: int, height: int, name: str) -> None:
    if not (0 < width * height <= PIXEL_LIMIT and max(width, height) <= SIDES_LIMIT * min(width, height)):
        found = f"{name} has pictures of {width:,} x {height:,} pixels"
        raise ConfigError(f"{found}; expected at most {PIXEL_LIMIT:,} in all, and no long and narrow ones")


def _check_total(pixels: int, frames: int, name: str) -> None:
    if pixels * frames > FRAME_PIXELS:
        raise ConfigError(
            f"{name} has {frames} frames of {pixels:,} pixels; expected at most {FRAME_PIXELS:,} pixels in all: "
            "scale it down, or show fewer frames"
        )


def _digest(mark: bytes, data: bytes) -> str:
    return hashlib.sha256(mark + b"\0" + data).hexdigest()
