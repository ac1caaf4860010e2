"""Models: what a file says of itself, what only its maker knows, and what it costs to run."""
