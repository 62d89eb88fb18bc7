"""What an operator sets and sees: settings, keys, limits, watched skills, metrics and logs."""
