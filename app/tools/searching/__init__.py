"""The tool `search_memory`, and jobs in which a model writes the searches."""
