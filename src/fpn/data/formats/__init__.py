"""How datasets lie on disk: one reader and one writer a format."""
