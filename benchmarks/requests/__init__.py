"""Whole requests as an app sends them: time, tokens, steps and scores, as base and with skills."""
