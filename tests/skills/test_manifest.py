"""The manifest: to JSON and back, and faults found without a package around it."""

from __future__ import annotations

import pytest

from lime_edge.common.digests import canonical_json
from lime_edge.contract.routing import Routing
from lime_edge.errors import SkillFormatError
from lime_edge.skills.manifest import Manifest, OtherFormatError, manifest_faults
from tests.support.faults.malformed import manifest


def test_a_manifest_is_its_own_round_trip() -> None:
    sealed = manifest().sealed({"gain": 1.5}, "0" * 64)
    assert Manifest.from_json(canonical_json(sealed.to_dict()).decode()) == sealed
    bare = Manifest(
        name="bare",
        version="0.1.0-rc.1+7",
        backbone="0" * 64,
        adapter="1" * 64,
        modules="2" * 64,
        routing=Routing(),
        created="2026-01-31",
        digest="3" * 64,
    )
    assert Manifest.from_dict(bare.to_dict()) == bare
    assert bare.experts == 4


def test_another_format_version_is_the_only_fault() -> None:
    document = manifest().sealed({}, "0" * 64).to_dict() | {"format": 3, "name": 7, "unknown": 1}
    with pytest.raises(OtherFormatError, match="format version 3") as caught:
        Manifest.from_dict(document)
    assert not caught.value.faults


def test_manifest_faults_is_the_list_that_from_dict_raises() -> None:
    document = manifest().sealed({}, "0" * 64).to_dict()
    assert manifest_faults(document) == []
    document |= {"name": "", "experts": 65}
    faults = manifest_faults(document)
    assert len(faults) == 3  # experts is out of range, and differs from routing.experts
    with pytest.raises(SkillFormatError) as caught:
        Manifest.from_dict(document)
    assert list(caught.value.faults) == faults
