"""Jobs that sum conversations up."""
