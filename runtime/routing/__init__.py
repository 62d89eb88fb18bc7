"""The choice of a skill by the request: from a state of the frozen backbone to probabilities of skills.

Knows neither the graph nor prompts. Method and measurements: docs/routing.md.
"""
