"""Memory managers: conversations in, memories out."""
