"""The Model Context Protocol: the same memory for MCP clients."""
