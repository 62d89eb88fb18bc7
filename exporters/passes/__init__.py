"""Graph passes that add skills to a decoder graph, one pass or one family a file.

A pass reports its faults before it changes the graph, and a second run changes nothing. Without values for the new
inputs, the graph computes the same as before, bit for bit. Passes do not know files.
"""
