"""Optimizers: a model improves prompts using conversations and feedback; no database."""
