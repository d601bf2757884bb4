"""Indexing: the passages and terms that items are found by."""
