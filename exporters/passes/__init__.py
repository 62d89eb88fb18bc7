"""Graph passes that add skills to a decoder graph, one pass or one family a file.

A pass lists its faults before it changes anything, and a second run changes nothing. With nothing fed to the new
inputs the graph computes what it computed before, bit for bit.
"""
