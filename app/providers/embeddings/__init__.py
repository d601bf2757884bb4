"""Texts to vectors: one file per provider behind one small interface."""
