"""The native operators: their C++ source, their compiler, and which library is loaded.

It does not know sessions or skills.
"""
