"""The registry of prompts, and the jobs that improve them."""
