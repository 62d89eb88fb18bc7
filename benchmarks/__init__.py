"""Benchmarks: each module with a command line runs as `python -m benchmarks.FOLDER.MODULE`."""
