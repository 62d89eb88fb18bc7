"""Vision towers: what a checkpoint says of pictures, its tower as an ONNX graph, and its decoder as a language model.

One family a file, listed in `families`. Needs torch and transformers.
"""
