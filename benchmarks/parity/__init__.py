"""Checks of equality: exports against torch and the builder's graph, and a skill against later learning."""
