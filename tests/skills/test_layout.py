"""Facts about a tensor table: cached, and enough to compute the digest of a package."""

from __future__ import annotations

import numpy as np

from lime_edge.skills.layout import layout_facts
from lime_edge.skills.package import digest_of
from lime_edge.skills.safetensors_file import Layout, pack, unpack
from lime_edge.skills.vector_codec import Array, encode_vectors
from tests.support.faults.malformed import EXPERTS, valid_package, vectors


def _layout(tensors: dict[str, Array]) -> Layout:
    layout = unpack(pack({"lime": "x"}, tensors)).layout
    assert layout is not None
    return layout


def test_facts_describe_the_table_and_are_cached() -> None:
    layout = unpack(valid_package()).layout
    assert layout is not None
    facts = layout_facts(layout)
    assert layout_facts(layout) is facts
    assert (facts.faults, facts.named) == ((), True)
    assert facts.experts == {EXPERTS}
    assert facts.kinds == {"expert", "gain", "shift"}
    assert facts.values == sum(array.size for array in vectors().values())  # scales do not count
    assert sorted(name for batch in facts.batches for name in batch.names) == sorted(vectors())


def test_the_digest_of_a_table_is_that_of_its_arrays() -> None:
    container = unpack(valid_package())
    assert container.layout is not None
    head = b"{}\n"
    digest = layout_facts(container.layout).digest(head, container.body)
    assert digest == digest_of({}, container.tensors)
    assert digest != layout_facts(container.layout).digest(b"{ }\n", container.body)


def test_a_table_with_faults_has_no_batches() -> None:
    stored = encode_vectors(vectors(), "i8")
    scale = next(name for name in stored if name.endswith(".scale"))
    facts = layout_facts(_layout({name: array for name, array in stored.items() if name != scale}))
    assert facts.faults == (f"tensor {scale} is missing: {scale.removesuffix('.scale')} is I8",)
    assert facts.batches == ()


def test_names_outside_ascii_have_no_digest() -> None:
    facts = layout_facts(_layout({"gain.\u00e9": np.ones((1, 4), np.float16)}))
    assert not facts.named
    assert facts.faults != ()
