"""From prompts to answers: the KV cache, the decoding loop, sampling, scoring, streams.

It does not know files or where skills came from.
"""
