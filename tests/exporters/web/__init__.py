"""Tests of the export for browsers and Node."""
