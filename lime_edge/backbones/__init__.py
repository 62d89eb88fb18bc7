"""A vision-language model family of our own, `lime_vision`: an EfficientNet-Lite tower, a projector, a causal LM.

The room does not know LiME: its models are backbones like any other of transformers.
"""
