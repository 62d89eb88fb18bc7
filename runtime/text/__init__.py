"""Text to tokens and back: chat templates, prompts, and an answer's text as it grows.

It does not know sessions or skills.
"""
