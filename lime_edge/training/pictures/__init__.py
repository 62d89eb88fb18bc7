"""Pictures in training: features by a frozen tower, their places in a batch, and a vision-language backbone of our own.

It does not know how a model is trained.
"""
