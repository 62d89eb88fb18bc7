"""Rivals of LiME in training: mixtures of adapters written from their papers, and PEFT's own methods.

Not part of the product: they are here to be measured against. They share one scaffold (`scaffold`);
a method is what it does differently.
"""
