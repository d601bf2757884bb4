"""What a model makes of a prompt and of conversations that were held with it; no database."""
