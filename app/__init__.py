"""memoryd: long-term memory for LLM agents, served over HTTP."""
