"""Tests of the vision-language family of our own."""
