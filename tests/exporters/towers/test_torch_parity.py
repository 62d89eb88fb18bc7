"""The comparison of an export with transformers finds what differs."""

from __future__ import annotations

import numpy as np
import pytest

from lime_edge.exporters.towers.torch_parity import distance, feature_faults, logit_faults, torch_features
from tests.exporters.towers.tower_case import contract_of, family_of, torch_model, tower
from tests.exporters.vision_case import exported, prompt


def test_the_distance_is_relative_and_infinite_for_what_cannot_be_compared() -> None:
    ones = np.ones((2, 3), np.float32)
    assert distance(ones, ones) == 0
    assert distance(1.5 * ones, ones) == pytest.approx(0.5)
    assert distance(ones[:1], ones) == distance(ones * np.float32("nan"), ones) == float("inf")


def test_features_of_another_picture_are_a_fault() -> None:
    family, model = family_of("smolvlm"), torch_model("smolvlm")
    probe = family.probe(model, contract_of("smolvlm"))
    features = torch_features(model, probe)
    assert feature_faults(features, family, probe, tower("smolvlm"), "fp32") == []
    swapped = [picture[::-1] for picture in features]
    (fault,) = feature_faults(swapped, family, probe, tower("smolvlm"), "int8")
    assert "features differ by" in fault
    assert fault.endswith("expected at most 0.15; export the tower as fp32")


@pytest.mark.parametrize("name", ["qwen2_vl", "llava_onevision"])
def test_logits_of_other_pictures_and_positions_are_a_fault(name: str) -> None:
    given, directory = prompt(name), exported(name).path
    assert logit_faults(given, directory, "fp32") == []
    wrong = [given._replace(features=given.features[::-1]), given._replace(feature_ids=given.feature_ids * 0 - 1)]
    if given.position_ids is not None:
        flat = np.broadcast_to(np.arange(given.input_ids.size), given.position_ids.shape)
        wrong.append(given._replace(position_ids=flat))
    for other in wrong:
        (fault,) = logit_faults(other, directory, "fp32")
        assert "logits differ by" in fault


def test_weights_of_four_bits_are_within_their_limit_and_noise_is_not() -> None:
    given, directory = prompt("llava_onevision"), exported("llava_onevision", "int4").path
    assert logit_faults(given, directory, "int4") == []
    noise = np.random.default_rng(0).permutation(given.logits, axis=-1)
    assert logit_faults(given._replace(logits=noise), directory, "int4") != []
