"""Converts an exported model directory to the form for browsers and Node: a lite graph, required inputs, web.json.

It does not know checkpoints, torch or how skills are learned.
"""
