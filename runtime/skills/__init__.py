"""Loaded skills: the bank of their vectors, their names and generations, and which one is active.

It does not know about prompts or tokens.
"""
