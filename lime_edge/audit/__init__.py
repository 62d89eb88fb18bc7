"""Examines a skill of unknown origin: verification, unusual vectors, side effects, hidden triggers.

It uses the runtime as an application does and changes no skill.
"""
