"""Describes skills, models, checkpoints, the store and this installation, as JSON and as tables.

It reads and reports; it changes nothing.
"""
