"""The job that improves prompts: what is asked, what is planned, doing it, storing what is new."""
