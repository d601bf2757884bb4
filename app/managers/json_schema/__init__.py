"""JSON Schemas that clients send: the accepted subset, and checks of content within a budget."""
