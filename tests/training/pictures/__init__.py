"""Tests of pictures in training."""
