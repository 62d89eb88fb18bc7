"""The skill package NAME.lime: its container, vectors, manifest, and whether it fits a model.

Everything is checked before it is used. It does not know signatures, the store, sessions or training.
"""
