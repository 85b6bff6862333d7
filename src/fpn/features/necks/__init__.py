"""Maps to maps: the pyramid and its rivals."""
