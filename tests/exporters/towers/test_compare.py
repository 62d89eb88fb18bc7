"""The comparison of an export with transformers finds what differs."""

from __future__ import annotations

import numpy as np
import pytest

from lime_edge.exporters.towers.compare import distance, feature_faults, logit_faults, torch_features
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
@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_logits_of_other_pictures_and_positions_are_a_fault(name: str, precision: str) -> None:
    given, directory = prompt(name), exported(name, precision).path  # type: ignore[arg-type]
    assert logit_faults(given, directory, precision) == []
    wrong = [given._replace(features=given.features[::-1])]
    if precision == "fp32" and given.position_ids is not None:
        wrong.append(
            given._replace(position_ids=np.broadcast_to(np.arange(given.input_ids.size), (3, 1, given.input_ids.size)))
        )
    for other in wrong:
        (fault,) = logit_faults(other, directory, precision)
        assert "logits differ by" in fault
