"""Unfinished downloads: kept, resumed, locked and collected."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from lime_edge.errors import FetchError, StoreError
from lime_edge.store.remote.resume import ResumableDownload, ResumableDownloads
from lime_edge.store.store import Store
from lime_edge.store.transfer import pull
from tests.support.paths import ROOT
from tests.support.servers.faulty_server import QUICK, Server, cut, dripping, file, in_turn
from tests.support.store_case import big, litter

PATH = "/x.lime"


def test_what_a_failed_pull_has_is_kept_for_the_next_and_collected_by_gc(server: Server, store: Store) -> None:
    data = big()
    server.routes[PATH] = cut(data, [1000, 1000, 1000, 1000])
    with pytest.raises(FetchError, match="1000 bytes were kept; pull again to resume"):
        pull(store, server.url + PATH, limits=QUICK)
    server.routes[PATH] = file(data)
    assert pull(store, server.url + PATH, limits=QUICK).path.read_bytes() == data
    assert server.ranges(PATH)[-1] == "bytes=1000-"
    server.routes["/other"] = cut(data, [10] * 9)
    with pytest.raises(FetchError, match="10 bytes were kept"):
        pull(store, f"{server.url}/other", limits=QUICK)
    assert store.gc().size == 10 + len('"v1"')
    assert not litter(store.path)


def test_a_pull_that_was_killed_is_resumed(server: Server, store: Store) -> None:
    """Another process is killed during a download; `gc` keeps the download while that process lives."""
    data = big()
    server.routes[PATH] = in_turn(dripping(data, 0.001, head(data)), file(data))
    code = "import sys; from lime_edge.cli import main; main()"
    command = [sys.executable, "-c", code, "pull", server.url + PATH]
    environment = {**os.environ, "LIME_EDGE_STORE": str(store.path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        folder = store.path / "partial"
        while not (parts := [path for path in folder.glob("*.part") if path.stat().st_size > 300]):
            assert process.poll() is None
            time.sleep(0.005)
        store.gc()
        assert parts[0].is_file()
        process.send_signal(signal.SIGKILL)
    had = parts[0].stat().st_size
    assert 300 < had < len(data)
    assert pull(store, server.url + PATH, limits=QUICK).path.read_bytes() == data
    assert server.ranges(PATH)[-1] == f"bytes={had}-"


def head(data: bytes) -> bytes:
    return f'HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\nETag: "v1"\r\n\r\n'.encode()


def test_bytes_are_appended_to_the_file_of_their_tag(tmp_path: Path) -> None:
    partial = ResumableDownload(tmp_path / "x")
    assert (partial.size, partial.tag, partial.read()) == (0, "", b"")
    partial.begin('"a"')
    assert partial.tag == ""  # without bytes there is nothing to resume
    partial.append(b"12")
    partial.append(b"3")
    assert (partial.size, partial.tag, partial.read()) == (3, '"a"', b"123")
    partial.begin('"b"')
    assert (partial.size, partial.read()) == (0, b"")
    partial.append(b"4")
    assert (partial.tag, partial.read()) == ('"b"', b"4")
    partial.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_download_in_progress_is_not_cleared(tmp_path: Path) -> None:
    downloads = ResumableDownloads(tmp_path, nullcontext)
    with downloads.hold("https://example.org/a") as partial:
        partial.begin('"a"')
        partial.append(b"123")
        with downloads.hold("https://example.org/b") as other:
            assert other.stem != partial.stem
        downloads.clear()
        assert partial.read() == b"123"
    assert sorted(downloads.clear())[-2:] == [3, 3]
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_cannot_be_kept_is_a_fault_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    partial = ResumableDownload(tmp_path / "file" / "below")
    calls: list[Callable[[], None]] = [lambda: partial.begin('"a"'), lambda: partial.append(b"1")]
    for call in calls:
        with pytest.raises(StoreError, match=r"the download cannot be kept in .*: Not a directory"):
            call()
