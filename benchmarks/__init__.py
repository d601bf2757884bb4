"""Loads that put memoryd beside the systems it replaces; README.md says how to read them."""
