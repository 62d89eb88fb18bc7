"""Who made a skill and whether it may be used: keys, signatures, policies.

It judges the bytes of one package. It does not know where they came from, or which skills are installed or loaded.
"""
