"""Benchmarks, run as modules: `python -m benchmarks.speed.decode --help` and so on."""
