"""The operators of the domain ai.lime, written as ONNX functions of standard operators.

It does not know checkpoints or decoder graphs.
"""
