"""One file over https, whatever the server does: resumed where it was cut, never larger or slower than allowed.

Everything that waits for the network runs in a thread that hands over pieces; the caller's own clock and counts decide
when it is enough. So a server that drips a byte now and then, in its headers too, cannot hold a caller for long.
Needs the extra `hub`. Knows nothing of skills.
"""

from __future__ import annotations

import contextlib
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from lime_edge.common.extras import require_extra
from lime_edge.common.strict_json import show
from lime_edge.errors import FetchError, LimeError
from lime_edge.skills.package import FILE_LIMIT

from .references import url_fault
from .resume import ResumableDownload

if TYPE_CHECKING:
    from requests import Response, Session

Progress = Callable[[int, int | None], None]  # bytes so far, and in all where that is known
_PIECE = 2**16  # bytes
_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")
_STRONG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')  # an ETag that promises the same bytes
_MISSING = (403, 404, 410)  # 403: what object stores say of files that are not there


@dataclass(frozen=True)
class Limits:
    """What a download may take."""

    size: int = FILE_LIMIT  # bytes
    silence: float = 20.0  # seconds without anything new
    rate: float = 1024.0  # bytes a second, on average over `window`
    window: float = 30.0  # seconds
    redirects: int = 5
    tries: int = 5  # in a row that bring nothing new


USUAL = Limits()


class CutError(Exception):
    """The connection ended before the file did; what came is kept."""


class Pace:
    """Watches that enough arrives."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._seen: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def add(self, count: int) -> None:
        """Raises FetchError: over the last window less than the least rate came."""
        now = time.monotonic()
        self._seen.append((now, count))
        since = now - self._seen[0][0]
        if since < self._limits.window:
            return
        came = sum(count for _, count in self._seen)
        if came < self._limits.rate * since:
            raise FetchError(f"only {came} bytes came in {since:.1f} s; expected {self._limits.rate:g} a second")
        while now - self._seen[0][0] >= self._limits.window / 2:
            self._seen.popleft()
        self._seen.appendleft((now - self._limits.window / 2, 0))


def session() -> Session:
    """A client that talks https, or http to this machine itself, and refuses to be led elsewhere.

    Proxies, certificates and ~/.netrc are as requests has them.
    """
    with require_extra("hub"):
        import requests
    made = requests.Session()
    made.headers.update({"Accept-Encoding": "identity", "User-Agent": "lime-edge"})
    made.hooks["response"].append(_guard)
    made.max_redirects = Limits.redirects
    return made


def download(url: str, partial: ResumableDownload, limits: Limits = USUAL, progress: Progress | None = None) -> bytes:
    """The bytes at `url`; what `partial` holds is not asked for again.

    Raises:
        FetchError: Not there, too large, too slow, or cut off again and again.
    """
    tries, restarts, pace = 0, 0, Pace(limits)
    with session() as client:
        while True:
            had, tag = partial.size, partial.tag
            try:
                _continue(client, url, partial, limits, pace, progress)
                data = partial.read()
            except CutError as error:
                cut = error
            else:
                partial.discard()
                return data
            restarts += tag != partial.tag
            tries = 0 if partial.size > had else tries + 1
            if max(tries, restarts) >= limits.tries:
                raise FetchError(f"{url} cannot be fetched: {cut}", [f"{partial.size} bytes are kept: pull again"])
            time.sleep(min(0.05 * 2**tries, 2.0))


def fetch_small(url: str, limit: int, limits: Limits = USUAL) -> bytes | None:
    """A small file that may be missing: None then.

    Raises:
        FetchError: Anything else went wrong, or it is over `limit` bytes.
    """
    try:
        with (
            session() as client,
            arriving(lambda: client.get(url, stream=True, **_wait(limits)), limits) as (head, body),
        ):
            if head.status_code in _MISSING:
                return None
            _check_head(head, (200,))
            return bounded_body(body, limit, Pace(limits))
    except CutError as error:
        raise FetchError(f"{url} cannot be fetched: {error}") from error


def bounded_body(
    body: Iterator[bytes], limit: int, pace: Pace, total: int | None = None, progress: Progress | None = None
) -> bytes:
    """All of a body, if it is no larger than `limit` and no slower than `pace`."""
    pieces, size = [], 0
    for piece in body:
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise FetchError(f"more than {limit} bytes came; expected at most that")
        pace.add(len(piece))
        if progress is not None:
            progress(size, total)
    return b"".join(pieces)


@contextlib.contextmanager
def arriving(ask: Callable[[], Response], limits: Limits) -> Iterator[tuple[Response, Iterator[bytes]]]:
    """A response and the pieces of its body as they come, from a thread that may be left behind.

    Raises:
        CutError: The connection failed or ended too early.
        FetchError: Nothing came for `Limits.silence` seconds, or the client refused to go where it was sent.
    """
    pieces: queue.Queue[Any] = queue.Queue(maxsize=8)
    gone = threading.Event()
    threading.Thread(target=_hand_over, args=(ask, pieces, gone), daemon=True).start()

    def take() -> Any:
        try:
            found = pieces.get(timeout=limits.silence)
        except queue.Empty:
            raise FetchError(f"nothing came for {limits.silence:g} s") from None
        if isinstance(found, LimeError):
            raise found
        if isinstance(found, Exception):
            raise CutError(_plain(found)) from found
        return found

    try:
        yield take(), iter(take, b"")
    finally:
        gone.set()


def _hand_over(ask: Callable[[], Response], pieces: queue.Queue[Any], gone: threading.Event) -> None:
    """Put the response, its body and an empty piece, or what went wrong, while somebody takes it."""

    def put(piece: Any) -> None:
        while not gone.is_set():
            with contextlib.suppress(queue.Full):
                pieces.put(piece, timeout=0.2)
                return

    from requests import TooManyRedirects

    try:
        with ask() as response:
            put(response)
            while not gone.is_set() and (piece := response.raw.read1(_PIECE, decode_content=False)):
                put(piece)
            put(b"")
    except TooManyRedirects as error:
        put(FetchError(str(error)))
    except Exception as error:  # noqa: BLE001  (it is raised where the pieces are taken)
        put(error)


def _plain(error: Exception) -> str:
    """What went wrong, without the objects that libraries wrap it in."""
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
    return f"{type(cause).__name__}: {cause}"[:300]


def _continue(
    client: Session, url: str, partial: ResumableDownload, limits: Limits, pace: Pace, progress: Progress | None
) -> None:
    """One request for what is missing; the file is complete when it returns."""
    tag = partial.tag
    if not tag:
        partial.discard()
    headers = {"Range": f"bytes={partial.size}-", "If-Range": tag} if tag else {}
    with arriving(lambda: client.get(url, headers=headers, stream=True, **_wait(limits)), limits) as (head, body):
        if tag and head.status_code == 416:
            if head.headers.get("Content-Range") == f"bytes */{partial.size}":
                return  # all of it was there
            partial.discard()
            raise CutError("the server does not know the range that it offered")
        _check_head(head, (200, 206) if tag else (200,))
        total = _begin(head, partial, limits)
        for piece in body:
            if partial.size + len(piece) > limits.size:
                partial.discard()
                raise FetchError(f"{url} is over {limits.size} bytes; expected at most that")
            partial.append(piece)
            pace.add(len(piece))
            if progress is not None:
                progress(partial.size, total)
        if total is not None and partial.size != total:
            raise CutError(f"{partial.size} bytes of {total} came")


def _begin(head: Response, partial: ResumableDownload, limits: Limits) -> int | None:
    """Make `partial` ready for the body of a response; the size of the whole file where it is known."""
    if head.status_code == 206:
        found = _RANGE.fullmatch(head.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != partial.size:
            partial.discard()
            raise CutError(f"asked for the rest, the server sent {show(head.headers.get('Content-Range'))}")
        total: int | None = int(found[3])
    else:
        tag = head.headers.get("ETag", "")
        partial.begin(tag if _STRONG.fullmatch(tag) else "")
        length = head.headers.get("Content-Length", "")
        total = int(length) if re.fullmatch(r"\d{1,15}", length, re.ASCII) else None
    if total is not None and total > limits.size:
        partial.discard()
        raise FetchError(f"{head.url} has {total} bytes; expected at most {limits.size}")
    return total


def _check_head(head: Response, expected: tuple[int, ...]) -> None:
    if head.status_code >= 500:
        raise CutError(f"the server answers {head.status_code} {show(head.reason)}")
    if head.status_code not in expected:
        raise FetchError(f"{head.url} cannot be fetched: the server answers {head.status_code} {show(head.reason)}")
    if (encoding := head.headers.get("Content-Encoding", "identity")) != "identity":
        raise FetchError(f"{head.url} comes encoded as {show(encoding)}; expected the file as it is")


def _guard(response: Response, *_: Any, **__: Any) -> None:
    """Before a redirect is followed: only to what a reference may name, and never from https to http."""
    location = response.headers.get("Location")
    if not response.is_redirect or location is None:
        return
    response.close()  # requests would read its body to the end, however long
    target = urlsplit(urljoin(response.url, location))
    fault = url_fault(target)
    if not fault and target.scheme != "https" and urlsplit(response.url).scheme == "https":
        fault = "that leaves https"
    if fault:
        raise FetchError(f"{response.url} leads to {show(location)}: {fault}")


def _wait(limits: Limits) -> dict[str, Any]:
    return {"timeout": (limits.silence, limits.silence)}
