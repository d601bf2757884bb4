"""The background process: runs jobs, and removes what has expired."""
