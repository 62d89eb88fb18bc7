"""Helpers that know nothing of LiME: strict JSON, files, paths, digests, versions, number formats."""
