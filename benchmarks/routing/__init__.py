"""The choice of a skill by the request, against words and a sentence encoder, and what it costs."""
