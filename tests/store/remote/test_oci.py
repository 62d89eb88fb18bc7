"""Skills in a local OCI registry that answers correctly, and in registries that lie."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lime_edge.errors import ConfigError, FetchError
from lime_edge.store.remote import oci
from lime_edge.store.remote.https import Limits
from lime_edge.store.store import Store
from lime_edge.store.transfer import pull, push
from tests.support.servers.faulty_server import endless, fixed
from tests.support.servers.oci_registry import Registry, digest_of, registry
from tests.support.store_case import package
from tests.tools.registry_round import go_round

QUICK = Limits(size=2**20, silence=1, tries=2)
NAME = "skills/tiny"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Registry]:
    """A registry that holds one skill."""
    with registry() as made:
        path = tmp_path / "a.lime"
        path.write_bytes(package())
        push(str(path), f"oci://{made.host}/{NAME}:1")
        yield made


def manifest(served: Registry) -> Any:
    return json.loads(served.manifests[f"{NAME}:1"])


def edited(served: Registry, edit: Callable[[Any], object]) -> None:
    """Edit the manifest of the tag."""
    document = manifest(served)
    edit(document)
    served.manifests[f"{NAME}:1"] = json.dumps(document).encode()


def test_push_pull_and_update(tmp_path: Path) -> None:
    with registry() as made:
        go_round(made.host, tmp_path)


def test_the_artifact_is_as_documented(served: Registry) -> None:
    data = package()
    assert manifest(served) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.lime-edge.skill.v1",
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "size": 2,
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        },
        "layers": [
            {
                "mediaType": "application/vnd.lime-edge.skill.v1.safetensors",
                "size": len(data),
                "digest": digest_of(data),
                "annotations": {"org.opencontainers.image.title": "tiny.lime"},
            }
        ],
        "annotations": {"org.opencontainers.image.title": "tiny", "org.opencontainers.image.version": "1.0.0"},
    }


def test_a_manifest_by_its_digest(served: Registry, tmp_path: Path) -> None:
    store, digest = Store(tmp_path / "store"), digest_of(served.manifests[f"{NAME}:1"])
    reference = f"oci://{served.host}/{NAME}@{digest}"
    assert pull(store, reference, limits=QUICK).name == "tiny"
    served.manifests[f"{NAME}@{digest}"] += b" "
    with pytest.raises(FetchError, match=f"expected {digest}"):
        pull(store, reference, limits=QUICK)
    with pytest.raises(ConfigError, match="cannot be pushed to"):
        push("tiny", reference)


def lie_about_a_blob(served: Registry) -> None:
    served.blobs[f"{NAME}@{digest_of(package())}"] = package(version="9.9.9")


def send_more_than_declared(served: Registry) -> None:
    edited(served, lambda document: document["layers"][0].update(size=10))


def declare_too_much(served: Registry) -> None:
    edited(served, lambda document: document["layers"][0].update(size=2**30))


def another_artifact(served: Registry) -> None:
    edited(served, lambda document: document.update(artifactType="application/vnd.oci.image.config.v1+json"))


def no_skill(served: Registry) -> None:
    edited(served, lambda document: document["layers"][0].update(mediaType=oci.SIGNATURE))


def two_skills(served: Registry) -> None:
    edited(served, lambda document: document["layers"].append(document["layers"][0]))


def a_layer_without_a_digest(served: Registry) -> None:
    edited(served, lambda document: document["layers"][0].pop("digest"))


def a_digest_that_is_a_path(served: Registry) -> None:
    edited(served, lambda document: document["layers"][0].update(digest="../../manifests/1"))


def no_json(served: Registry) -> None:
    served.manifests[f"{NAME}:1"] = b"{"


def a_list(served: Registry) -> None:
    served.manifests[f"{NAME}:1"] = b"[]"


def a_manifest_without_end(served: Registry) -> None:
    served.server.routes[f"/v2/{NAME}/manifests/1"] = endless(b" " * 2**16)


def a_blob_without_end(served: Registry) -> None:
    served.server.routes[f"/v2/{NAME}/blobs/{digest_of(package())}"] = endless(b" " * 2**16)


def a_blob_elsewhere(served: Registry) -> None:
    served.server.routes[f"/v2/{NAME}/blobs/{digest_of(package())}"] = fixed(307, Location="http://example.org/x")


def a_blob_that_is_missing(served: Registry) -> None:
    served.blobs.clear()


def no_such_tag(served: Registry) -> None:
    served.manifests.clear()


LIES: dict[Callable[[Registry], None], str] = {
    lie_about_a_blob: "has sha256:",
    send_more_than_declared: "more than 10 bytes, the limit",
    declare_too_much: "has a layer of 1073741824 bytes",
    another_artifact: "is an artifact of type",
    no_skill: "expected one application/vnd.lime-edge.skill.v1.safetensors",
    two_skills: "expected one application/vnd.lime-edge.skill.v1.safetensors",
    a_layer_without_a_digest: "expected mediaType, size and digest",
    a_digest_that_is_a_path: "expected mediaType, size and digest",
    no_json: "is not strict JSON",
    a_list: "is an artifact of type None",
    a_manifest_without_end: "more than 1048576 bytes, the limit",
    a_blob_without_end: "bytes, the limit for this file",
    a_blob_elsewhere: "plain http can be read",
    a_blob_that_is_missing: "the registry answers 404",
    no_such_tag: "the registry answers 404",
}


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_a_registry_that_lies(served: Registry, tmp_path: Path, lie: Callable[[Registry], None]) -> None:
    store = Store(tmp_path / "store")
    lie(served)
    with pytest.raises(FetchError, match=LIES[lie]):
        pull(store, f"oci://{served.host}/{NAME}:1", limits=QUICK)
    assert not store.list()


def test_a_registry_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.lime"
    path.write_bytes(package())
    for call in (
        lambda: pull(Store(tmp_path), "oci://127.0.0.1:9/a:1"),
        lambda: push(str(path), "oci://127.0.0.1:9/a:1"),
    ):
        with pytest.raises(FetchError, match="Connection refused"):
            call()


def test_a_registry_that_refuses_a_push(served: Registry, tmp_path: Path) -> None:
    served.server.routes[f"/v2/{NAME}/blobs/uploads/"] = fixed(202, Location=f"/v2/{NAME}/blobs/session-1?state=b")
    path = tmp_path / "a.lime"
    path.write_bytes(package(version="2.0.0"))
    with pytest.raises(FetchError, match="the registry answers 400"):
        push(str(path), f"oci://{served.host}/{NAME}:2")
