"""Benchmarks of memoryd and the systems it replaces; README.md explains the figures."""
