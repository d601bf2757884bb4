"""Jobs that learn from conversations."""
