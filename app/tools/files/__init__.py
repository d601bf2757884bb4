"""Anthropic's memory tool: files that a model keeps, each an item of one namespace."""
