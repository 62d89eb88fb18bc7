"""Time, memory and size of decoding, prefill, skill switching, loading and training."""
