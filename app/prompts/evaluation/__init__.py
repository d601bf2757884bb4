"""Whether a new text of a prompt leads to better answers than the old one; no database."""
