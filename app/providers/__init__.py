"""The outside AI world: the only place that imports model SDKs and runtimes."""
