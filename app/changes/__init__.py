"""Changes of items by jobs: from edits to the store, reviewed, and undone."""
