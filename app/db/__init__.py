"""PostgreSQL: connections, the schema, and its migrations."""
