"""Trains the shared adapter and learns skills, with torch and the transformers Trainer.

It does not know the store, signatures or the command line.
"""
