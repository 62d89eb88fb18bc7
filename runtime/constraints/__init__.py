"""Valid answers: which tokens may come next, which must, and when an answer may end.

It does not know about sessions, skills or sampling.
"""
