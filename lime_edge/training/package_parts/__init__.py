"""What `learn` puts into a package besides its vectors: interface, golden prompts, scores, centroids of requests."""
