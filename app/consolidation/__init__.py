"""Jobs that tidy up what is kept already."""
