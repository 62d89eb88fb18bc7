"""What the HTTP server costs, and what it answers under load."""
