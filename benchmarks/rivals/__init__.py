"""Training methods to compare LiME with: mixtures of adapters written from their papers, and PEFT's own methods.

Not part of the product. The mixtures share one `scaffold`; each class holds only what its method does differently.
"""
