"""Benchmarks, run as modules, for example `python -m benchmarks.speed.decode`."""
