"""Runs the requests of all callers together: one step engine that rows join and leave.

It does not know about HTTP, nor how prompts and settings are checked.
"""
