"""Jobs: work that outlives a request, kept in PostgreSQL and done by workers."""
