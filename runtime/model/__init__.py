"""An exported model directory, its ONNX Runtime session, and the buffers of one run.

It does not know about prompts, sampling or individual skills.
"""
