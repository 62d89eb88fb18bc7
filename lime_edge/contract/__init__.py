"""What checkpoint, skill, graph and runtime agree on: vector kinds, routing, module table, lime.json, names.

It holds plain data and checks; it does not know torch, ONNX Runtime, training or how a skill is stored.
"""
