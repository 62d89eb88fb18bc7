"""The skill package NAME.lime: its container, vectors, manifest, and whether it fits a model.

A package is fully validated before any of it is used. The room does not know signatures, the store, sessions or
training.
"""
