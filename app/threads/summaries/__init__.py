"""Summaries of conversations: jobs that shorten or record them."""
