"""Conversations and memories as models see them: shared by all features that use models."""
