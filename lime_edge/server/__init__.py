"""Serves one model and its skills over HTTP, with the API of OpenAI and the names of vLLM.

It does not decode: every request is a call of the runtime. No request can name a file outside the folders that the
operator configured. docs/server.md describes the API.
"""
