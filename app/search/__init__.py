"""Finding items by meaning: candidates and their ranking."""
