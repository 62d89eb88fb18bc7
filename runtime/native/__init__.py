"""The native operators: their C++ source, how it is compiled, and which library is loaded.

It does not know about sessions or skills.
"""
