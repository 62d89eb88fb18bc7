"""From prompts to answers: the KV cache, the decoding loop, sampling, scoring, streams.

It does not know about files or where skills come from.
"""
