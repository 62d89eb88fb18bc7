"""Examines a skill of unknown origin: verification, unusual vectors, side effects, hidden triggers.

It runs skills through the runtime and never changes one. It knows nothing of training, export or the store.
"""
