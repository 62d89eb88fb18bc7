"""The weights of a checkpoint as arrays, and where a decoder graph multiplies by them.

Only reads graphs; the passes change them.
"""
