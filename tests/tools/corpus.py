"""Writes a corpus of files that every reader must refuse: `python -m tests.tools.corpus FOLDER`.

It holds the tables of tests/support/faults/malformed.py and tests/skills/format_2_cases.py, and cases that are large
or need a file system: JSON bombs, truncation at every boundary, links and pipes. index.json lists the
faults for which each file must be refused. The corpus can test other readers, too."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import click

from tests.skills.format_2_cases import FORMAT_2
from tests.support.faults.malformed import (
    MALFORMED,
    Case,
    Document,
    Q,
    framed,
    header_case,
    manifest_case,
    tensor_case,
    valid_package,
    with_header,
    with_manifest,
)

MEGABYTE = 2**20
_CUT = "the header inside the file"


def _with_lime(text: str) -> bytes:
    """The valid package with another manifest text, used verbatim."""
    return with_header(lambda found: found.update(__metadata__={"lime": text}))


def _raw_header(edit: Callable[[bytes], bytes]) -> bytes:
    """The valid package with edited header bytes."""
    data = valid_package()
    size = int.from_bytes(data[:8], "little")
    return framed(edit(data[8 : 8 + size]), data[8 + size :])


def _again(found: Document) -> None:
    """Give the bytes of one tensor a second name."""
    found[Q + "2"] = dict(found[Q])


def _past_the_end(found: Document) -> None:
    entry = max((e for e in found.values() if "shape" in e), key=lambda e: e["data_offsets"][1])
    entry["data_offsets"] = [offset + 2**20 for offset in entry["data_offsets"]]


def _second_name(module: str) -> Case:
    """A second tensor with this module name."""
    return tensor_case(
        f"module {module!r}", lambda t: t.update({f"expert.{module}": t[Q]}), "expected a name <kind>.<m"
    )


#: JSON whose parsing takes far more memory or time than its length suggests.
BOMBS = [
    Case("bomb of lists", lambda: framed(b"[" + b"[]," * 2**20 + b"[]]"), ("contains 1048578 of [ and {",)),
    Case("bomb of objects", lambda: framed(b"[" + b"{}," * 2**20 + b"0]"), ("contains 1048577 of [ and {",)),
    Case("bomb of texts", lambda: framed(b'["ab"' + b',"cd"' * 2**20 + b"]"), ("1048576 of , and :",)),
    Case("bomb of numbers", lambda: framed(b"[1000" + b",1000" * 2**20 + b"]"), ("1048576 of , and :",)),
    Case(
        "bomb of keys",
        lambda: framed(("{" + ",".join(f'"{n}":0' for n in range(2**18 - 8)) + "}").encode()),
        ("contains 262136 tensors; expected at most 16384", "no key 'lime'"),
    ),
    Case(
        "bomb of metadata",
        lambda: with_header(lambda h: h["__metadata__"].update({str(n): "" for n in range(100_000)})),
        (*(f"unknown key '{n}'" for n in range(40)), "and 99960 more faults"),
    ),
    Case("bomb below the metadata", lambda: framed(b'{"__metadata__":' + b'{"a":' * 60_000), ("nested too deeply",)),
    Case("text of 7 MB", lambda: framed(b'{"a": "' + b"x" * 7 * MEGABYTE + b'"}'), ("expected an object with", "lime")),
    Case("name of 7 MB", lambda: framed(b'{"' + b"x" * 7 * MEGABYTE + b'": 0}'), ("tensor 'xxx", "no key 'lime'")),
    Case("wide text of 7 MB", lambda: framed(b'{"' + "😀".encode() * (7 * 2**18) + b'": 0}'), ("tensor '", "no key")),
    Case(
        "manifest of lists",
        lambda: with_manifest(lambda t: "[" + "[]," * 2**19 + "[]]"),
        ("not strict JSON: contains",),
    ),
    manifest_case("description of 3 MB", "manifest.description is 'xxx", description="x" * 3 * MEGABYTE),
    manifest_case("version of 3 MB", "manifest.version is '1.0.0+a", version="1.0.0+" + "a" * 3 * MEGABYTE),
    manifest_case("version that backtracks", "manifest.version is '1.0.0-1", version="1.0.0-" + "1." * 27 + "!"),
    Case(
        "number of 400,000 digits", lambda: with_manifest(lambda t: t.replace("0.7,", "9" * 400_000 + ",")), ("JSON",)
    ),
    Case("number 1e999999", lambda: with_manifest(lambda t: t.replace("0.7,", "1e999999,")), ("gamma is inf",)),
    manifest_case("number of 4,000 digits", "manifest.experts is 1", "but routing.experts is 2", experts=10**4000),
    Case("side of 4,000 digits", lambda: with_header(lambda h: h[Q].update(shape=[10**4000, 40])), ("each from 1",)),
    Case(
        "offset of 4,000 digits", lambda: with_header(lambda h: h[Q].update(data_offsets=[0, 10**4000])), ("[begin, ",)
    ),
]

#: Names that look like paths, and keys that other readers might misinterpret.
NAMES = [
    *[
        manifest_case(f"name {name!r}", "manifest.name is", name=name)
        for name in (
            "../../etc/passwd",
            "/tmp/x",
            "..",
            ".hidden",
            "a/b",
            "a\\b",
            "c:x",
            "a\0b",
            "nul ",
            "\uff41",
            "a\u202eb",
        )
    ],
    *[_second_name(name) for name in ("../../x", "/etc/passwd", "..\\x", "a\0b", "a\nb", "é", "-rf", "a" * 201)],
    manifest_case("backbone is a path", "manifest.backbone is '../", backbone="../" * 21 + "x"),
    Case(
        "digest in capitals",
        lambda: with_manifest(lambda t: re.sub(r'"digest":"\w+"', lambda found: f'"digest":"{"A" * 64}"', t)),
        ("manifest.digest is 'AAA",),
    ),
    manifest_case("tensor named digest", "manifest has the unknown key 'digests'", digests={}),
    Case(
        "digest cut out",
        lambda: with_manifest(lambda t: re.sub(r'"digest":"\w+",', "", t)),
        ("lacks the key 'digest'",),
    ),
    Case("digest twice", lambda: with_manifest(lambda t: re.sub(r'("digest":"\w+",)', r"\1\1", t)), ("appears twice",)),
    Case(
        "digest of zeros",
        lambda: with_manifest(lambda t: re.sub(r'"digest":"\w+"', f'"digest":"{"0" * 64}"', t)),
        ("the manifest says 000000000000: the file was changed or damaged",),
    ),
]

#: Headers in another form than ours.
FORMS = [
    Case("BOM", lambda: _raw_header(lambda h: b"\xef\xbb\xbf" + h), ("not strict JSON",)),
    Case("UTF-16", lambda: _raw_header(lambda h: h.decode().encode("utf-16")), ("not strict JSON: 'utf-8'",)),
    Case("Latin 1", lambda: _raw_header(lambda h: h.decode().encode("latin-1")), ("not strict JSON: 'utf-8'",)),
    Case(
        "overlong slash", lambda: _raw_header(lambda h: h.replace(b"brief", b"\xc0\xaf")), ("not strict JSON: 'utf-8'",)
    ),
    Case("space before", lambda: _raw_header(lambda h: b" " + h), ("white space before it",)),
    Case("line feed behind", lambda: _raw_header(lambda h: h.rstrip() + b"\n"), ("other white space than spaces",)),
    Case("zeros behind", lambda: _raw_header(lambda h: h.rstrip() + b"\0\0"), ("not strict JSON",)),
    Case("two headers", lambda: _raw_header(lambda h: h.rstrip() * 2), ("not strict JSON",)),
    Case("comment", lambda: _raw_header(lambda h: h.replace(b"{", b"{/**/", 1)), ("not strict JSON",)),
    Case("comma too many", lambda: _raw_header(lambda h: h.rstrip()[:-1] + b",}"), ("not strict JSON",)),
    Case("minus zero", lambda: _raw_header(lambda h: h.replace(b"[0,", b"[-0,", 1)), ("-0 is not a whole number",)),
    Case("leading zero", lambda: _raw_header(lambda h: h.replace(b"[0,", b"[00,", 1)), ("not strict JSON",)),
    Case("number in hex", lambda: _raw_header(lambda h: h.replace(b"[0,", b"[0x0,", 1)), ("not strict JSON",)),
    Case("Infinity", lambda: _raw_header(lambda h: h.replace(b"[0,", b"[-Infinity,", 1)), ("-Infinity is not a JSON",)),
    Case("tensor twice", lambda: _raw_header(lambda h: h.rstrip()[:-1] + f',"{Q}":0}}'.encode()), ("appears twice",)),
    Case(
        "shape twice",
        lambda: _raw_header(lambda h: h.replace(b'"shape":', b'"shape":[1,1],"shape":', 1)),
        ("key 'shape' appears twice",),
    ),
    header_case("shape of one side", lambda h: h[Q].update(shape=[80]), "shape [80]; expected [rows, columns]"),
    header_case("bytes under two names", _again, "overlaps the tensor before it"),
    header_case("past the end", _past_the_end, "leaves a gap before it"),
    header_case(
        "offset of -1", lambda h: h[Q].update(data_offsets=[-1, 79]), "data_offsets [-1, 79]; expected [begin, end]"
    ),
    header_case("offsets near 2^64", lambda h: h[Q].update(data_offsets=[2**64 - 80, 2**64]), "expected [begin, end]"),
    header_case("I16", lambda h: h[Q].update(dtype="I16", shape=[2, 20]), "dtype 'I16'; expected F16 or I8"),
    header_case(
        "type and shape of the same bytes",
        lambda h: h[Q].update(dtype="F16", shape=[2, 20]),
        "expert.layers.0.q_proj.scale is not allowed",
        "some vectors are F16 and some I8",
        "has widths",
        "contains numbers that are not finite",
        "the file was changed or damaged",
    ),
    manifest_case("format 0", "format version 0; this lime-edge reads versions 1 and 2", format=0),
    manifest_case("format -1", "format version -1; this lime-edge reads versions 1 and 2", format=-1),
    manifest_case("format 2^70", "format version 1180591620717411303424; this", format=2**70),
    manifest_case("format '1'", "manifest.format is '1'", format="1"),
    manifest_case("format null", "manifest.format is None", format=None),
    manifest_case("format true", "manifest.format is True", format=True),
]


def _boundaries() -> dict[str, int]:
    """The ends of the parts of a package, by part."""
    data = valid_package()
    size = int.from_bytes(data[:8], "little")
    found = {"length": 8, "metadata": 8 + data[8:].index(b',"draft.'), "table": 8 + size}
    entries = json.loads(data[8 : 8 + size])
    del entries["__metadata__"]
    return found | {name: 8 + size + entry["data_offsets"][1] for name, entry in entries.items()}


def _cuts() -> list[Case]:
    whole, places = len(valid_package()), _boundaries()
    cuts = {
        f"cut {what} {name}": at - back for name, at in places.items() for back, what in enumerate(("behind", "in"))
    }
    return [
        _cut(name, at, "is cut short" if at >= places["table"] else _CUT) for name, at in cuts.items() if at < whole
    ]


def _cut(name: str, at: int, fault: str) -> Case:
    return Case(name, lambda: valid_package()[:at], (fault,))


CORPUS = [*MALFORMED, *FORMAT_2, *BOMBS, *NAMES, *FORMS, *_cuts()]

#: Paths that are not regular files: how to create each, and the message that refuses it.
PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder.lime": (lambda path: path.mkdir(), "not a regular file"),
    "pipe.lime": (lambda path: os.mkfifo(path), "not a regular file"),
    "link-to-pipe.lime": (lambda path: path.symlink_to("pipe.lime"), "not a regular file"),
    "link-to-folder.lime": (lambda path: path.symlink_to("."), "not a regular file"),
    "link-to-itself.lime": (lambda path: path.symlink_to(path.name), "cannot be read"),
    "link-to-nothing.lime": (lambda path: path.symlink_to("nothing"), "does not exist"),
    "link-to-zeros.lime": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "link-to-no-skill.lime": (lambda path: path.symlink_to("/proc/self/cmdline"), "not a skill package|changed while"),
    "sparse.lime": (lambda path: _sparse(path, 2**28 + 1), "268435457 bytes; expected at most 268435456"),
}


def _sparse(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        file.truncate(size)


def write_corpus(folder: Path) -> dict[str, list[str]]:
    """Write every file and index.json.

    Returns:
        File name -> parts of the messages with which the file must be refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index: dict[str, list[str]] = {}
    for number, case in enumerate(CORPUS):
        path = folder / f"{number:03}-{re.sub('[^a-z0-9]+', '-', case.name.lower()).strip('-')[:60]}.lime"
        path.write_bytes(case.make())
        index[path.name] = list(case.faults)
    for name, (make, message) in PLACES.items():
        make(folder / name)
        index[name] = [message]
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n", "utf-8")
    return index


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Write the corpus to a folder that is empty or does not exist yet."""
    if folder.exists() and any(folder.iterdir()):
        raise click.ClickException(f"{folder} is not empty")
    click.echo(f"{len(write_corpus(folder))} files that must be refused are in {folder}")


if __name__ == "__main__":
    main()
