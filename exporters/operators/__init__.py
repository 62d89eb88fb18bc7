"""The operators of the domain ai.lime, written as ONNX functions of standard operators."""
