"""Downloads from a local server that cuts connections, lies, sends slowly and redirects."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from lime_edge.errors import ConfigError, FetchError, SkillFormatError
from lime_edge.store.remote.https import Limits
from lime_edge.store.store import Store
from lime_edge.store.transfer import pull
from tests.support.servers.faulty_server import QUICK, Request, Server, cut, dripping, endless, file, fixed, in_turn
from tests.support.store_case import big, package, sha256, signature_of

PATH = "/x.lime"


def test_a_file_with_its_signature(server: Server, store: Store) -> None:
    data = package()
    server.routes = {PATH: file(data), f"{PATH}.sig": file(signature_of(data))}
    seen: list[tuple[int, int | None]] = []
    found = pull(store, f"{server.url}{PATH}", limits=QUICK, progress=lambda *now: seen.append(now))
    assert (found.name, found.version, found.changed, found.held.origin) == ("tiny", "1.0.0", True, server.url + PATH)
    assert found.path.read_bytes() == data
    assert (found.path.parent / f"{found.path.name}.sig").read_bytes() == signature_of(data)
    assert seen[-1] == (len(data), len(data))
    assert server.asked[0][1]["Accept-Encoding"] == "identity"


def test_the_query_stays_behind_the_name_of_the_signature(server: Server, store: Store) -> None:
    data = package()
    server.routes = {f"{PATH}?token=1": file(data), f"{PATH}.sig?token=1": file(signature_of(data))}
    found = pull(store, f"{server.url}{PATH}?token=1", limits=QUICK)
    assert (found.path.parent / f"{found.path.name}.sig").is_file()


def test_cut_connections_are_resumed_where_they_broke(server: Server, store: Store) -> None:
    data = big()
    server.routes[PATH] = cut(data, [100, 101, 1000, 4000, 4001])
    assert pull(store, f"{server.url}{PATH}#sha256={sha256(data)}", limits=QUICK).path.read_bytes() == data
    assert server.ranges(PATH) == [None, "bytes=100-", "bytes=101-", "bytes=1000-", "bytes=4000-", "bytes=4001-"]
    assert {headers.get("If-Range") for _, headers in server.asked[1:6]} == {'"v1"'}


def test_a_file_that_changes_between_two_parts_is_fetched_anew(server: Server, store: Store) -> None:
    old, new = package("big", description="a" * 3000), big()
    server.routes[PATH] = in_turn(cut(old, [2000], '"old"'), file(new, '"new"'))
    assert pull(store, server.url + PATH, limits=QUICK).path.read_bytes() == new
    assert server.ranges(PATH) == [None, "bytes=2000-"]


def test_without_a_strong_tag_nothing_is_resumed(server: Server, store: Store) -> None:
    data = big()
    server.routes[PATH] = in_turn(cut(data, [2000], 'W/"weak"'), file(data, 'W/"weak"'))
    assert pull(store, server.url + PATH, limits=QUICK).path.read_bytes() == data
    assert server.ranges(PATH) == [None, None]


def test_an_answer_to_another_range_is_not_added(server: Server, store: Store) -> None:
    data = big()
    wrong = fixed(206, data[10:], Content_Range=f"bytes 10-{len(data) - 1}/{len(data)}", ETag='"v1"')
    server.routes[PATH] = in_turn(cut(data, [2000]), wrong, file(data))
    assert pull(store, server.url + PATH, limits=QUICK).path.read_bytes() == data


def test_a_range_that_the_server_does_not_know_is_fetched_anew(server: Server, store: Store) -> None:
    data = big()
    server.routes[PATH] = in_turn(cut(data, [2000]), fixed(416, Content_Range="bytes */7"), file(data))
    assert pull(store, server.url + PATH, limits=QUICK).path.read_bytes() == data


def test_a_server_that_is_busy_is_asked_again(server: Server, store: Store) -> None:
    server.routes[PATH] = in_turn(fixed(503), file(package()))
    assert pull(store, server.url + PATH, limits=QUICK).changed


def test_a_longer_length_than_there_are_bytes(server: Server, store: Store) -> None:
    """The connection seems cut, but nothing is missing; the server confirms it with status 416."""
    data = package()

    def route(request: Request) -> None:
        if request.headers.get("Range"):
            return request.answer(416, Content_Range=f"bytes */{len(data)}")
        return request.answer(200, data, Content_Length=len(data) + 100, ETag='"v1"')

    server.routes[PATH] = route
    assert pull(store, server.url + PATH, limits=QUICK).path.read_bytes() == data
    server.routes["/always"] = fixed(200, data, Content_Length=len(data) + 100, ETag='"v1"')
    with pytest.raises(FetchError, match=f"{len(data)} bytes read|of {len(data) + 100} bytes arrived"):
        pull(store, f"{server.url}/always", limits=QUICK)


def test_a_shorter_length_than_there_are_bytes(server: Server, store: Store) -> None:
    data = package()
    server.routes[PATH] = fixed(200, data, Content_Length=len(data) - 10)
    with pytest.raises(SkillFormatError, match="cut short"):
        pull(store, server.url + PATH, limits=QUICK)
    with pytest.raises(FetchError, match=f"has SHA-256 {sha256(data[:-10])}, which does not match the pin"):
        pull(store, f"{server.url}{PATH}#sha256={sha256(data)}", limits=QUICK)


def test_other_content_than_the_reference_is_pinned_to(server: Server, store: Store) -> None:
    server.routes[PATH] = file(package())
    with pytest.raises(FetchError, match="does not match the pin"):
        pull(store, f"{server.url}{PATH}#sha256={sha256(big())}", limits=QUICK)
    assert not store.list()


def test_a_signature_without_end(server: Server, store: Store) -> None:
    server.routes = {PATH: file(package()), f"{PATH}.sig": endless(b"x" * 2**16)}
    with pytest.raises(FetchError, match="more than 65536 bytes, the limit"):
        pull(store, server.url + PATH, limits=QUICK)


def silent(request: Request) -> None:
    request.book.closing.wait(5)


def no_http(request: Request) -> None:
    request.wfile.write(b"SSH-2.0-x\r\n")


REFUSED: dict[str, tuple[Callable[[Request], None], str]] = {
    "missing": (fixed(404), "answers 404"),
    "forbidden": (fixed(403), "answers 403"),
    "part that was not asked for": (fixed(206, b"x", Content_Range="bytes 0-0/1"), "answers 206"),
    "no content": (fixed(204), "answers 204"),
    "always cut at once": (cut(b"x" * 100, [0] * 99), "cannot be fetched"),
    "always cut after a byte, another file each time": (
        lambda request: request.answer(200, b"x", Content_Length=99, ETag=f'"{time.monotonic_ns()}"'),
        "cannot be fetched",
    ),
    "always busy": (fixed(500), "answers 500"),
    "declared too large": (fixed(200, b"x", Content_Length=2**20 + 1), "has 1048577 bytes; expected at most 1048576"),
    "without end": (endless(b"x" * 2**16), "is larger than 1048576 bytes, the limit"),
    "compressed bomb": (
        fixed(200, gzip.compress(bytes(2**24)), Content_Encoding="gzip"),
        "with Content-Encoding 'gzip'",
    ),
    "to a file": (fixed(302, Location="file:///etc/passwd"), "redirects to 'file:///etc/passwd': 'file' is not https"),
    "to plain http elsewhere": (fixed(301, Location="http://example.org/x"), "plain http can be read"),
    "to a password": (fixed(307, Location="https://a:b@example.org/x"), "a password in an address"),
    "to no host": (fixed(302, Location="https:///x"), "names no host"),
    "round in circles": (fixed(302, Location=PATH), "Exceeded 5 redirects"),
    "dripping": (dripping(b"x" * 10_000, 0.05, b"HTTP/1.1 200 OK\r\n\r\n"), "expected 200 bytes a second"),
    "dripping headers": (dripping(b"X-A: b\r\n" * 1000, 0.01, b"HTTP/1.1 200 OK\r\n"), "sent nothing for 0.4 s"),
    "dripping the length of a chunk": (
        dripping(b"0" * 1000, 0.01, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        "sent nothing for 0.4 s",
    ),
    "silent": (silent, "sent nothing for 0.4 s"),
    "no HTTP": (no_http, "cannot be fetched"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_changes_nothing(server: Server, store: Store, name: str) -> None:
    store.install(package(version="0.9.0"))
    server.routes[PATH], message = REFUSED[name]
    with pytest.raises(FetchError, match=message):
        pull(store, server.url + PATH, limits=QUICK)
    assert [(entry.name, entry.current) for entry in store.list()] == [("tiny", "0.9.0")]


def test_redirects_on_this_machine_are_followed(server: Server, store: Store) -> None:
    server.routes = {"/a": fixed(302, Location="/b"), "/b": fixed(308, Location=PATH), PATH: file(package())}
    assert pull(store, f"{server.url}/a", limits=QUICK).changed


def test_the_body_of_a_redirect_is_not_waited_for(server: Server, store: Store) -> None:
    def route(request: Request) -> None:
        request.answer(302, b"x", Content_Length=10**9, Location=PATH)
        request.book.closing.wait(5)

    server.routes = {"/a": route, PATH: file(package())}
    assert pull(store, f"{server.url}/a", limits=QUICK).changed


def test_nobody_listens(server: Server, store: Store) -> None:
    with pytest.raises(FetchError, match="Connection refused"):
        pull(store, "http://127.0.0.1:9/x.lime", limits=QUICK)


@pytest.mark.parametrize(
    "url", ["http://example.org/x", "https://u:p@example.org/x", "ftp://example.org/x", "https:///x"]
)
def test_addresses_that_are_refused_before_anything_is_asked(store: Store, url: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be used|is not a reference scheme"):
        pull(store, url)


def test_the_usual_limits_take_the_largest_package() -> None:
    usual = Limits()
    assert usual.size == 256 * 2**20
    assert usual == replace(usual, redirects=5, tries=5)
