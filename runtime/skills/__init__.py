"""Loaded skills: the bank of their vectors, names, generations, and which one is active.

It does not know prompts or tokens.
"""
