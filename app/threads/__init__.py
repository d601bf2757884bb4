"""Threads: conversations buffered for the extraction of memories, and their summaries."""
