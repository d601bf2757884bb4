"""Clients' JSON Schemas: the accepted subset, and checks of content within a budget."""
