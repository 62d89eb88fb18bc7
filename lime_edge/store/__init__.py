"""Skills installed on this machine: versions, rollback, updates, publishing.

The room does not know models, sessions or training.
"""
