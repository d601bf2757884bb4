"""Memories that a real model extracts from conversations, judged blind."""
