"""Extraction of memories from conversations."""
