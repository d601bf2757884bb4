"""Consolidation: jobs that merge, correct, and delete stored memories."""
