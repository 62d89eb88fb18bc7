"""Other platforms: fixtures for browsers and Node, and ARM."""
