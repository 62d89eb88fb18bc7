"""Pictures that requests show to the model: each is encoded once, and known by numbers of its own.

Every feature of a picture has a number of its own, below zero, which stands for it in token ids. Numbers come from a
counter and belong to the digest of the picture: two pictures never share one, so a prefix of a prompt that is found by
its ids shows the same pictures. Features are kept while a request uses them, and within a limit of bytes after that.
"""

from __future__ import annotations

import bisect
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from lime_edge.common.strict_json import show
from lime_edge.contract.content_parts import MediaKind
from lime_edge.errors import ConfigError

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

DEFAULT_BYTES = 2**27
_MOST_BYTES = 2**44
_REMEMBERED = 2**14  # digests whose numbers are kept after their features


class Picture:
    """A picture or video that was encoded.

    Attributes:
        features: [F, H], in the order of the prompt.
        pieces, kind, grid, interval: As those of `lime_edge.runtime.vision.prepared.Prepared`.
        token: The token id that stands in the graph's input where a feature is.
        first: Number of the first feature; the id of feature n is -(first + n).
    """

    def __init__(
        self,
        features: Floats,
        pieces: tuple[str | int, ...],
        kind: MediaKind,
        token: int,
        grid: tuple[int, int, int] | None = None,
        interval: float = 1.0,
    ) -> None:
        self.features = features
        self.pieces, self.kind, self.token = pieces, kind, token
        self.grid, self.interval = grid, interval
        self.count = len(features)
        self.first = 0  # set by the store

    @property
    def ids(self) -> Ids:
        """The ids of all features, [F]."""
        return -np.arange(self.first, self.first + self.count)


class Fed(NamedTuple):
    """What the graph reads for token ids of which some are features."""

    ids: Ids  # as given, with the pictures' tokens in place of features
    feature_ids: Ids  # the row in `features` of each; -1 is text
    features: Floats  # [F, H]


class Pictures:
    """The pictures of one runtime. Safe to use from several threads.

    Args:
        limit: Maximum bytes of features that are kept after the requests that show them.
    """

    def __init__(self, limit: int = DEFAULT_BYTES) -> None:
        self.limit, self._size = limit, 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Picture] = OrderedDict()  # used least recently first
        self._live: WeakValueDictionary[str, Picture] = WeakValueDictionary()
        self._running: dict[str, Future[Picture]] = {}
        self._firsts: OrderedDict[str, int] = OrderedDict()
        self._starts: list[int] = []  # ascending: `first` of the pictures that may be alive
        self._by_start: WeakValueDictionary[int, Picture] = WeakValueDictionary()
        self._next = 1
        self.encoded = 0  # how many pictures were encoded so far

    def get(self, digest: str, encode: Callable[[], Picture]) -> Picture:
        """The picture of a digest; encoded by the first that asks for it, while others wait.

        Args:
            digest: Equal for equal pictures, prepared in the same way.
            encode: Encodes it; what it raises is raised to all who wait.
        """
        with self._lock:
            picture = self._live.get(digest)
            if picture is not None:
                self._keep(digest, picture)
                return picture
            running = self._running.get(digest)
            if running is None:
                future = self._running[digest] = Future()
        if running is not None:
            return running.result()
        try:
            picture = encode()
        except BaseException as error:
            with self._lock:
                del self._running[digest]
            future.set_exception(error if isinstance(error, Exception) else ConfigError("the encoding was stopped"))
            raise
        with self._lock:
            self._enter(digest, picture)
            del self._running[digest]
        future.set_result(picture)
        return picture

    def feed(self, ids: Ids) -> Fed:
        """What the graph reads for ids [b, S] of which some are features of pictures that are in use.

        Raises:
            ConfigError: Nobody uses one of the pictures, and its features are not kept.
        """
        plain, rows = ids.copy(), np.full(ids.shape, -1, np.int64)
        found: list[Floats] = []
        count = 0
        for picture, at in self._owners(ids):
            numbers = -ids[at] - picture.first
            low, high = int(numbers.min()), int(numbers.max()) + 1
            plain[at], rows[at] = picture.token, numbers - low + count
            found.append(picture.features[low:high])
            count += high - low
        return Fed(plain, rows, np.concatenate(found))

    def positions(self, ids: Ids) -> Ids:
        """Positions [3, S] in time, rows and columns of a whole row of ids [S], from its first token on.

        As those of `lime_edge.runtime.vision.placement.positions`.
        """
        steps = np.ones(len(ids), np.int64)  # from each token to the next
        inside = np.zeros((3, len(ids)), np.int64)  # coordinates in a picture's grid
        for picture, at in self._owners(ids):
            numbers = -ids[at] - picture.first
            grid = picture.grid or (1, 1, picture.count)
            times, rows, columns = np.unravel_index(numbers, grid)
            inside[:, at] = np.stack([(times * picture.interval).astype(np.int64), rows, columns])
            steps[at] = np.where(numbers == picture.count - 1, max(grid[1:]), 0)
        made: Ids = np.cumsum(steps) - steps + inside
        return made

    def _owners(self, ids: Ids) -> list[tuple[Picture, npt.NDArray[np.bool_]]]:
        """The pictures in token ids, and where each is."""
        numbers = np.unique(-ids[ids < 0])
        owners = []
        with self._lock:
            while len(numbers):
                start = self._starts[bisect.bisect_right(self._starts, int(numbers[0])) - 1] if self._starts else 0
                picture = self._by_start.get(start)
                if picture is None or numbers[0] >= start + picture.count:
                    raise ConfigError("a picture of this conversation is not kept any more: show it again")
                owners.append(picture)
                numbers = numbers[numbers >= start + picture.count]
        return [(one, (ids <= -one.first) & (ids > -one.first - one.count)) for one in owners]

    def _enter(self, digest: str, picture: Picture) -> None:
        first = self._firsts.pop(digest, 0)
        if not first:
            first, self._next = self._next, self._next + picture.count
        self._firsts[digest] = picture.first = first
        if len(self._firsts) > _REMEMBERED:
            self._firsts.popitem(last=False)
        if len(self._starts) > 2 * len(self._by_start) + 16:
            self._starts = sorted(self._by_start.keys())
        if first not in self._starts[max(0, bisect.bisect_left(self._starts, first)) :][:1]:
            bisect.insort(self._starts, first)
        self._by_start[first] = self._live[digest] = picture
        self.encoded += 1
        self._keep(digest, picture)

    def _keep(self, digest: str, picture: Picture) -> None:
        """Let a picture be the one that was used last, within the limit."""
        if digest not in self._kept:
            self._size += picture.features.nbytes
        self._kept[digest] = picture
        self._kept.move_to_end(digest)
        while self._size > self.limit:
            _, gone = self._kept.popitem(last=False)
            self._size -= gone.features.nbytes


def checked_picture_cache(value: Any) -> int:
    """The limit of the features that are kept, in bytes.

    Raises:
        ConfigError: It is not a whole number in range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_BYTES:
        raise ConfigError(
            f"picture_cache is {show(value)}; expected whole bytes from 0, which keeps nothing, to {_MOST_BYTES}"
        )
    return value
