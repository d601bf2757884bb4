"""Tools for agents: memory that a model may call for."""
