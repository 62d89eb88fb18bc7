"""Drafts the next tokens of an answer, so that the model verifies several in one step.

It does not know about graphs, caches or settings: the decoding loop calls it.
"""
