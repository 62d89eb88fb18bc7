"""Skills installed on this machine: versions, rollback, updates, publishing.

It does not know models, sessions or training.
"""
