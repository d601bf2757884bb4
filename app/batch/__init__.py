"""Several store operations in one request."""
