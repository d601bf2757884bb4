"""Threads: conversations buffered until memories are formed from them, and their summaries."""
