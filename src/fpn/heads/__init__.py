"""From levels to raw predictions, and their losses."""
