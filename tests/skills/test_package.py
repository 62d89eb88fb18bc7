"""Skill packages: round trips, golden bytes, the digest, and refusals with their reasons."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lime_edge.contract.vector_kinds import KINDS
from lime_edge.errors import SkillError, SkillFormatError
from lime_edge.skills import package
from lime_edge.skills.compatibility import check_skill
from lime_edge.skills.interface import Interface
from lime_edge.skills.package import Skill, describe, digest_of, read_skill, write_skill
from tests.support.faults.malformed import (
    CONTRACT,
    EXPERTS,
    MALFORMED,
    MODULES,
    RANK,
    Case,
    assert_faults,
    assert_refused,
    draft_table,
    manifest,
    old_manifest,
    route,
    vectors,
)
from tests.support.paths import GOLDEN

#: SHA-256 of the file, and digest. If they change, existing packages fail to verify: raise the format version instead.
PINNED = {
    "tiny-i8": (
        "4e22fc6f1ca66e806a8c965ade23309a02ec5412fb9f1f58a787cfd8dcb0fb6d",
        "ce07db64a25598b63a33ff669e1bd14f2f0bcaa2a8d31fa1f3340a2178fba90d",
    ),
    "tiny-f16": (
        "c64f89ed5d365cb8576c152feffff931f8bf49d25753ce5be5fdde75bceb047e",
        "d05d302670df713be7a79b69bdc1a13860eb94271462321239bd8509e64e5778",
    ),
    "tiny-2-i8": (
        "46471cce5ecdcbe69910649c38e4096b8c89a4541ac097cb6deb893c767a8fe4",
        "41f71fe4b78b160e8b5369546dfb1f7f7187078d17fa28b1bf1a851e0f748c01",
    ),
    "tiny-2-f16": (
        "848766d0ade20d6e6c803df37514c88f0163f71e565f78ed65d02ee899e05c25",
        "ff3835bd77da54c4f3cd24508f42f89127eeb458ce4b51659383c523cb3411b6",
    ),
}
FUZZ = settings(max_examples=300, deadline=None, derandomize=True, database=None)
Dtype = Literal["i8", "f16"]


@pytest.mark.parametrize("dtype", ["i8", "f16"])
def test_what_is_written_is_what_is_read(tmp_path: Path, dtype: Dtype) -> None:
    wrote = write_skill(tmp_path / "a.lime", manifest(), vectors(), dtype)
    read = read_skill(tmp_path / "a.lime")
    assert read.manifest == wrote.manifest
    assert replace(read.manifest, bounds={}, digest="") == manifest()
    assert (read.size, read.dtype) == ((tmp_path / "a.lime").stat().st_size, dtype.upper())
    assert read.kinds == ("expert", "gain", "shift")
    assert sorted(read.tensors) == sorted(vectors())
    for name, array in read.tensors.items():
        assert array.dtype == np.float32
        assert not array.flags.writeable
        np.testing.assert_array_equal(array, wrote.tensors[name])
    assert os.listdir(tmp_path) == ["a.lime"]


def test_every_kind_at_once(tmp_path: Path) -> None:
    """The rank gate has width r, the other kinds have width H."""
    skill = write_skill(tmp_path / "a.lime", manifest(), vectors(KINDS))
    assert read_skill(skill.path).kinds == KINDS
    assert skill.tensors[f"rank.{MODULES[0]}"].shape == (EXPERTS, RANK)
    check_skill(skill, CONTRACT)


def test_f16_keeps_what_f16_can_say(tmp_path: Path) -> None:
    read = write_skill(tmp_path / "a.lime", manifest(), vectors(), "f16")
    for name, array in vectors().items():  # multiples of 1/32 up to 1
        np.testing.assert_array_equal(read.tensors[name], array)


_FLOATS = st.floats(-60_000, 60_000, width=32) | st.floats(-(2.0**-20), 2.0**-20, width=32) | st.floats(-2, 2, width=32)


def test_zeros_are_kept_and_have_no_scale(tmp_path: Path) -> None:
    zeros = {name: np.zeros_like(array) for name, array in vectors().items()}
    skill = write_skill(tmp_path / "a.lime", manifest(), zeros)
    assert all(not array.any() for array in skill.tensors.values())
    assert skill.manifest.bounds == {"expert": 0, "gain": 0, "shift": 0}
    stored = safetensors.numpy.load_file(tmp_path / "a.lime")
    assert not any(array.any() for name, array in stored.items() if name.endswith(".scale"))


@FUZZ
@given(hnp.arrays(np.float32, (EXPERTS, 40), elements=_FLOATS), st.sampled_from(["i8", "f16"]))
def test_bounds_are_just_above_the_values(
    tmp_path_factory: pytest.TempPathFactory, values: np.ndarray[Any, np.dtype[np.float32]], dtype: Dtype
) -> None:
    path = tmp_path_factory.getbasetemp() / "bounds.lime"
    skill = write_skill(path, manifest(), {f"gain.{MODULES[0]}": values}, dtype)
    peak = float(np.abs(skill.tensors[f"gain.{MODULES[0]}"]).max())
    assert peak <= skill.manifest.bounds["gain"] <= peak * 1.001
    assert read_skill(path).digest == skill.digest


@pytest.mark.parametrize("dtype", ["i8", "f16"])
@pytest.mark.parametrize("version", [1, 2])
def test_golden_bytes(tmp_path: Path, version: int, dtype: Dtype) -> None:
    name = f"tiny-{dtype}" if version == 1 else f"tiny-2-{dtype}"
    golden = GOLDEN / f"{name}.lime"
    known = old_manifest() if version == 1 else manifest()
    extra: dict[str, Any] = {} if version == 1 else {"draft": draft_table(), "route": route()}
    wrote = write_skill(tmp_path / "a.lime", known, vectors(), dtype, **extra)
    assert (tmp_path / "a.lime").read_bytes() == golden.read_bytes()
    assert (hashlib.sha256(golden.read_bytes()).hexdigest(), wrote.digest) == PINNED[name]


@pytest.mark.parametrize("name", PINNED)
def test_a_package_that_is_read_and_written_again_has_the_same_bytes(tmp_path: Path, name: str) -> None:
    read = read_skill(GOLDEN / f"{name}.lime")
    dtype: Dtype = "i8" if read.dtype == "I8" else "f16"
    write_skill(tmp_path / "a.lime", read.manifest, read.tensors, dtype, read.draft, read.route)
    assert (tmp_path / "a.lime").read_bytes() == (GOLDEN / f"{name}.lime").read_bytes()


def test_a_package_of_format_1_has_a_plain_interface() -> None:
    skill = read_skill(GOLDEN / "tiny-i8.lime")
    assert (skill.manifest.format, skill.draft, skill.route, skill.manifest.made) == (1, None, None, None)
    assert skill.interface == Interface(system="Be brief.")
    facts = describe(skill)
    assert facts["interface"]["input"] == {"system": "Be brief.", "prefix": "", "suffix": ""}
    assert set(facts["prompt"]) == {"generation", "stop"}


def test_draft_table_and_route_come_back(tmp_path: Path) -> None:
    wrote = write_skill(tmp_path / "a.lime", manifest(), vectors(), draft=draft_table(), route=route())
    read = read_skill(wrote.path)
    assert read.interface == manifest().interface
    assert read.manifest.made == manifest().made
    assert read.draft is not None
    assert read.draft.entries == draft_table().entries
    assert (read.manifest.draft, read.manifest.route) == (draft_table().meta(), route().meta())
    assert read.route is not None
    assert (read.route.meta(), str(read.route.centroids.dtype)) == (route().meta(), "float32")
    np.testing.assert_array_equal(read.route.centroids, route().centroids)
    assert sorted(read.tensors) == sorted(vectors())
    assert describe(read)["draft_bytes"] == read.draft.size
    assert describe(read)["route_shape"] == [2, 2]
    without = write_skill(wrote.path, read.manifest, vectors())
    assert (without.draft, without.route, without.manifest.draft) == (None, None, None)


def test_format_1_refuses_what_it_has_no_key_for(tmp_path: Path) -> None:
    old = old_manifest(interface=Interface(prefix="x"), made=manifest().made)
    with pytest.raises(SkillFormatError) as caught:
        write_skill(tmp_path / "a.lime", old, vectors(), draft=draft_table(), route=route())
    unknown = [f"manifest has the unknown key '{key}'" for key in ("draft", "interface", "made", "route")]
    assert_faults(caught.value, tuple(unknown))
    with pytest.raises(SkillFormatError, match="unknown key 'centroid'"):
        write_skill(tmp_path / "a.lime", manifest(centroid=[1.0]), vectors())


def test_the_order_of_the_author_does_not_matter(tmp_path: Path, written: Skill) -> None:
    write_skill(tmp_path / "b.lime", manifest(), dict(reversed(vectors().items())))
    assert (tmp_path / "b.lime").read_bytes() == written.path.read_bytes()


@pytest.mark.parametrize("name", PINNED)
def test_the_digest_as_the_format_page_tells_it(name: str) -> None:
    """The ten lines of docs/skill-format.md, without our code."""
    path = GOLDEN / f"{name}.lime"
    with safetensors.safe_open(path, "np") as file:
        text = file.metadata()["lime"]
        digest = json.loads(text)["digest"]
        sha = hashlib.sha256(text.replace(f'"digest":"{digest}",', "").encode() + b"\n")
        for name in sorted(file.keys()):
            array = file.get_tensor(name)
            rows, columns = array.shape
            sha.update(f'["{name}","{array.dtype}",[{rows},{columns}]]\n'.encode() + array.tobytes())
    assert sha.hexdigest() == digest


def test_the_digest_covers_every_key_and_every_tensor() -> None:
    document = manifest().to_dict() | {"draft": draft_table().meta(), "route": route().meta()}
    stored = {name: array.astype(np.float16) for name, array in vectors().items()}
    stored |= {**draft_table().stored, **route().stored()}
    seen = {digest_of(document, stored)}
    for key in document.keys() - {"digest"}:
        seen.add(digest_of(document | {key: "other"}, stored))
    for name in stored:
        seen.add(digest_of(document, stored | {name: stored[name] + 1}))
        seen.add(digest_of(document, stored | {name: stored[name].reshape(-1, 1, 1)}))
    assert len(seen) == 1 + len(document) - 1 + 2 * len(stored)
    assert digest_of(document | {"digest": "other"}, stored) in seen


@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: case.name)
def test_malformed_packages_are_refused_with_the_reason(tmp_path: Path, case: Case) -> None:
    assert_refused(tmp_path / "bad.lime", case)


def test_the_tables_are_long_enough_and_have_no_twins() -> None:
    assert len({case.name for case in MALFORMED}) == len(MALFORMED) >= 90


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, word in {
        ".": "not a regular file",
        "pipe": "not a regular file",
        "link": "not a regular file",
        "none": "does not exist",
        "loop": "cannot be read",
        "nul\0": "cannot be read",
    }.items():
        with pytest.raises(SkillFormatError, match=word):
            read_skill(str(tmp_path / name))


def test_a_link_to_a_file_is_followed(tmp_path: Path, written: Skill) -> None:
    (tmp_path / "link.lime").symlink_to(written.path)
    assert read_skill(tmp_path / "link.lime").digest == written.digest


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "big.lime", "wb") as file:
        file.truncate(package.FILE_LIMIT + 1)  # sparse
    with pytest.raises(SkillFormatError, match="268435457 bytes; expected at most 268435456"):
        read_skill(tmp_path / "big.lime")


_ONES = np.ones((EXPERTS, 40), np.float32)


@pytest.mark.parametrize(
    ("change", "tensors", "dtype", "faults"),
    [
        ({}, {}, "i8", ["contains no vectors"]),
        ({}, {"gain.m": _ONES * np.nan}, "i8", ["'gain.m' contains numbers that are not finite"]),
        ({}, {"gain.m": _ONES * 1e7}, "i8", ["'gain.m' reaches 1e+07, too large for i8"]),
        ({}, {"gain.m": _ONES * 1e5}, "f16", ["'gain.m' reaches 100000, too large for f16"]),
        ({}, {"gain.m": _ONES[0]}, "f16", ["'gain.m' is float32 [40]; expected floats [E, width]"]),
        ({}, {"gain.m": _ONES.astype(int)}, "i8", ["'gain.m' is int64 [2, 40]"]),
        ({}, {"bias.m": _ONES, "gain.\ud800": _ONES}, "f16", ["'bias.m': expected a name", r"'gain.\ud800'", "no vec"]),
        ({}, {"gain.m": _ONES}, "f32", ["dtype is 'f32'; expected 'i8' or 'f16'"]),
        ({}, {"gain.m": _ONES[:1]}, "i8", ["tensor 'gain.m' has 1 rows; expected E = 2", "gain.m.scale' has 1 rows"]),
        ({"name": "A", "license": ""}, {"gain.m": _ONES}, "i8", ["manifest.name is 'A'", "manifest.license is ''"]),
    ],
)
def test_what_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, change: dict[str, Any], tensors: dict[str, Any], dtype: Any, faults: list[str]
) -> None:
    with pytest.raises(SkillFormatError) as caught:
        write_skill(tmp_path / "a.lime", manifest(**change), tensors, dtype)
    assert_faults(caught.value, tuple(faults))
    assert not os.listdir(tmp_path)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(SkillError, match="cannot be written: No such file or directory"):
        write_skill(tmp_path / "none" / "a.lime", manifest(), vectors())


def test_a_failed_write_keeps_the_old_file(written: Skill, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written.path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(SkillError, match="No space left"):
        write_skill(written.path, manifest(version="2.0.0"), vectors())
    assert written.path.read_bytes() == before
    assert os.listdir(written.path.parent) == ["tiny.lime"]


def test_describe_is_plain_and_complete(written: Skill) -> None:
    facts = describe(written)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["name"] == "tiny"
    assert (facts["dtype"], facts["size"]) == ("I8", written.size)
    assert (facts["modules_count"], facts["values"]) == (2, 6 * EXPERTS * 40)
    assert facts["digest"] == written.digest
    assert facts["metrics"][0]["skill"] == 0.75
