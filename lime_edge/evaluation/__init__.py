"""Examples from data files, and how answers are scored.

The room needs no torch and does not know how a model was trained.
"""
