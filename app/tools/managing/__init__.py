"""The tool `manage_memory`: an agent's model creates, updates and deletes memories itself."""
