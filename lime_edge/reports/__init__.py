"""Describes skills, models, checkpoints, the store and this installation, as JSON and as tables.

The room only reads; its one exception is `doctor.build_operators`, which runs on request.
"""
