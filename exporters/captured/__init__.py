"""Graphs captured from the forward pass of a torch module, for models that the model builder does not know."""
