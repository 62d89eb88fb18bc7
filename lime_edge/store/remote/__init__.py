"""Where skills come from: references, HTTPS, the Hugging Face Hub, OCI registries.

The room delivers bytes and does not know what is installed.
"""
