"""What models propose to do with memories: asked, checked, repaired, merged. No database."""
