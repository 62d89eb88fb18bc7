"""Pictures and videos: untrusted files, decoded within bounds and prepared for a vision graph, in numpy and Pillow.

It knows neither graphs nor prompts of the runtime, so that training prepares pictures with the same code. Pillow and
PyAV are imported when the first picture or video is opened.
"""
