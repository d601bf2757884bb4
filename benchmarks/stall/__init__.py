"""Attacks on a server, and their effect on a second client."""
