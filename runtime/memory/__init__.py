"""Memory that is reserved once and reused: pools and sparsely used arrays.

It does not know about models or skills.
"""
