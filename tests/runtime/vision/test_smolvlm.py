"""Marks and texts around tiles and frames, by hand. (test_prepare.py compares pixels with transformers.)"""

from __future__ import annotations

import numpy as np

from lime_edge.runtime.vision.smolvlm import frame_texts, prepare_image
from tests.runtime.vision import contracts as c


def test_two_rows_of_four_tiles_and_the_whole() -> None:
    made = prepare_image(np.zeros((32, 64, 3), np.uint8), c.SMOLVLM)  # enlarged to 64 x 128
    assert made.arrays["pixel_values"].shape == (9, 3, 32, 32)
    assert made.count == 36
    assert made.pieces[:2] == ("<fake><row_1_col_1>", 4)
    assert made.pieces[8:10] == ("\n<fake><row_2_col_1>", 4)
    assert made.pieces[-3:] == ("\n\n<fake><global>", 4, "<fake>")


def test_texts_of_a_video() -> None:
    before, stamps, after = frame_texts([0.0, 61.9], 3723.5)
    assert before == "You are provided the following series of two frames from a 1:02:03 [H:MM:SS] video.\n"
    assert stamps == ["\nFrame from 00:00:", "\nFrame from 01:01:"]
    assert after == "\n\n"
