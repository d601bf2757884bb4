"""The worker process: runs jobs, and removes expired items."""
