"""Attacks on a server, and what a second client notices of them."""
