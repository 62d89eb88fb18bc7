"""Benchmarks, run as modules, for example `python -m benchmarks.speed.decode`."""

import lime_edge  # noqa: F401  (disables the telemetry of onnxruntime before a benchmark imports it)
