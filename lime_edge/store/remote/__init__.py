"""Where skills come from: references, HTTPS, the Hugging Face Hub, OCI registries.

It delivers bytes and does not know what is installed.
"""
