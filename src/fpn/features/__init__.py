"""From pixels to named levels: bottom-up paths, the pyramid, and its rivals."""
