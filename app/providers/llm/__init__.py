"""Conversations to completions: one file per provider behind one small interface."""
