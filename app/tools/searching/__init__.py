"""Jobs in which a model writes the searches for what a conversation is about."""
