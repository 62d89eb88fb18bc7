"""Converts text to tokens and back: chat templates, prompts, and the text of a growing answer.

It does not know about sessions or skills.
"""
