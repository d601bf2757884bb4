"""API keys, their grants, and who may do what where."""
