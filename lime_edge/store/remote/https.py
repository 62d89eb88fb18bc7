"""Downloads one file over https from an untrusted server: resumable, with limits on size, silence and rate.

Network calls run in a thread that passes pieces to the caller, and the caller enforces the limits with its own clock.
A server that sends single bytes slowly, even in its headers, therefore cannot block the caller for long. Needs the
extra `hub`.
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

Progress = Callable[[int, int | None], None]  # bytes so far, and the total or None if it is unknown
_PIECE = 2**16  # bytes
_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")
_STRONG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')  # a strong ETag: equal tags mean equal bytes
_MISSING = (403, 404, 410)  # object stores answer 403 for missing files


@dataclass(frozen=True)
class Limits:
    """Limits of one download."""

    size: int = FILE_LIMIT  # bytes
    silence: float = 20.0  # seconds without any data
    rate: float = 1024.0  # bytes a second, on average over `window`
    window: float = 30.0  # seconds
    redirects: int = 5
    tries: int = 5  # consecutive attempts without progress


USUAL = Limits()


class CutError(Exception):
    """The connection ended before the end of the file; the received bytes are kept."""


class Pace:
    """Enforces the minimum rate of a download."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._seen: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def add(self, count: int) -> None:
        """Count received bytes; raises FetchError if the rate over the last window is below `Limits.rate`."""
        now = time.monotonic()
        self._seen.append((now, count))
        since = now - self._seen[0][0]
        if since < self._limits.window:
            return
        received = sum(count for _, count in self._seen)
        if received < self._limits.rate * since:
            raise FetchError(
                f"the server sent only {received} bytes in {since:.1f} s; expected {self._limits.rate:g} bytes a second"
            )
        while now - self._seen[0][0] >= self._limits.window / 2:
            self._seen.popleft()
        self._seen.appendleft((now - self._limits.window / 2, 0))


def session() -> Session:
    """A client for https, and for http to this machine; it refuses redirects to anything else.

    Proxies, certificates and ~/.netrc follow the defaults of requests.
    """
    with require_extra("hub"):
        import requests
    client = requests.Session()
    client.headers.update({"Accept-Encoding": "identity", "User-Agent": "lime-edge"})
    client.hooks["response"].append(_check_redirect)
    client.max_redirects = Limits.redirects
    return client


def download(url: str, partial: ResumableDownload, limits: Limits = USUAL, progress: Progress | None = None) -> bytes:
    """Download the file at `url`; continues after the bytes in `partial`.

    Args:
        url: The address.
        partial: Keeps the received bytes if the download fails; empty after success.
        limits: When to give up.
        progress: Called after every piece.

    Raises:
        FetchError: The file is missing, too large or too slow, or every retry was cut off.
    """
    tries, restarts, pace = 0, 0, Pace(limits)
    with session() as client:
        while True:
            had, tag = partial.size, partial.tag
            try:
                _request_rest(client, url, partial, limits, pace, progress)
                data = partial.read()
            except CutError as error:
                cut = error
            else:
                partial.discard()
                return data
            restarts += tag != partial.tag
            tries = 0 if partial.size > had else tries + 1
            if max(tries, restarts) >= limits.tries:
                raise FetchError(
                    f"{url} cannot be fetched: {cut}", [f"{partial.size} bytes were kept; pull again to resume"]
                )
            time.sleep(min(0.05 * 2**tries, 2.0))


def fetch_small(url: str, limit: int, limits: Limits = USUAL) -> bytes | None:
    """Download a small file; None if it does not exist.

    Raises:
        FetchError: The download failed, or the file is larger than `limit` bytes.
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
    """Read a whole body; raises FetchError if it is larger than `limit` bytes or slower than `pace` allows."""
    pieces, size = [], 0
    for piece in body:
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise FetchError(f"the server sent more than {limit} bytes, the limit for this file")
        pace.add(len(piece))
        if progress is not None:
            progress(size, total)
    return b"".join(pieces)


@contextlib.contextmanager
def arriving(ask: Callable[[], Response], limits: Limits) -> Iterator[tuple[Response, Iterator[bytes]]]:
    """A response and an iterator over the pieces of its body, read by a thread that is abandoned at the end.

    Raises:
        CutError: The connection failed or ended too early.
        FetchError: The server sent nothing for `Limits.silence` seconds, or redirected to a forbidden address.
    """
    pieces: queue.Queue[Any] = queue.Queue(maxsize=8)
    stopped = threading.Event()
    threading.Thread(target=_read_response, args=(ask, pieces, stopped), daemon=True).start()

    def take() -> Any:
        try:
            piece = pieces.get(timeout=limits.silence)
        except queue.Empty:
            raise FetchError(f"the server sent nothing for {limits.silence:g} s") from None
        if isinstance(piece, LimeError):
            raise piece
        if isinstance(piece, Exception):
            raise CutError(_root_cause(piece)) from piece
        return piece

    try:
        yield take(), iter(take, b"")
    finally:
        stopped.set()


def _read_response(ask: Callable[[], Response], pieces: queue.Queue[Any], stopped: threading.Event) -> None:
    """Put the response, its body and an empty piece, or an exception, into the queue until `stopped` is set."""

    def put(piece: Any) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                pieces.put(piece, timeout=0.2)
                return

    from requests import TooManyRedirects

    try:
        with ask() as response:
            put(response)
            while not stopped.is_set() and (piece := response.raw.read1(_PIECE, decode_content=False)):
                put(piece)
            put(b"")
    except TooManyRedirects as error:
        put(FetchError(str(error)))
    except Exception as error:  # noqa: BLE001  (raised again by the consumer of the queue)
        put(error)


def _root_cause(error: Exception) -> str:
    """The innermost exception as text; libraries wrap it several times."""
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
    return f"{type(cause).__name__}: {cause}"[:300]


def _request_rest(
    client: Session, url: str, partial: ResumableDownload, limits: Limits, pace: Pace, progress: Progress | None
) -> None:
    """Request the missing bytes once; `partial` is complete on return."""
    tag = partial.tag
    if not tag:
        partial.discard()
    headers = {"Range": f"bytes={partial.size}-", "If-Range": tag} if tag else {}
    with arriving(lambda: client.get(url, headers=headers, stream=True, **_wait(limits)), limits) as (head, body):
        if tag and head.status_code == 416:
            if head.headers.get("Content-Range") == f"bytes */{partial.size}":
                return  # nothing is missing
            partial.discard()
            raise CutError("the server refused to resume the download")
        _check_head(head, (200, 206) if tag else (200,))
        total = _start_body(head, partial, limits)
        for piece in body:
            if partial.size + len(piece) > limits.size:
                partial.discard()
                raise FetchError(f"{url} is larger than {limits.size} bytes, the limit")
            partial.append(piece)
            pace.add(len(piece))
            if progress is not None:
                progress(partial.size, total)
        if total is not None and partial.size != total:
            raise CutError(f"only {partial.size} of {total} bytes arrived")


def _start_body(head: Response, partial: ResumableDownload, limits: Limits) -> int | None:
    """Prepare `partial` for the body of a response; returns the size of the whole file, or None if it is unknown."""
    if head.status_code == 206:
        match = _RANGE.fullmatch(head.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != partial.size:
            had, sent = partial.size, show(head.headers.get("Content-Range"))
            partial.discard()
            raise CutError(f"the server sent Content-Range {sent}; expected the bytes from {had} on")
        total: int | None = int(match[3])
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
        raise FetchError(f"{head.url} is sent with Content-Encoding {show(encoding)}; expected none")


def _check_redirect(response: Response, *_: Any, **__: Any) -> None:
    """Check a redirect before it is followed: only to addresses that a reference may name, never from https to http."""
    location = response.headers.get("Location")
    if not response.is_redirect or location is None:
        return
    response.close()  # requests would read the whole body, however long
    target = urlsplit(urljoin(response.url, location))
    fault = url_fault(target)
    if not fault and target.scheme != "https" and urlsplit(response.url).scheme == "https":
        fault = "https must not redirect to http"
    if fault:
        raise FetchError(f"{response.url} redirects to {show(location)}: {fault}")


def _wait(limits: Limits) -> dict[str, Any]:
    return {"timeout": (limits.silence, limits.silence)}
