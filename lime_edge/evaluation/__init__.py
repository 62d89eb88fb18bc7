"""Examples from data files, and how answers are scored.

It needs no torch and does not know how a model was trained.
"""
