"""Which images to label next: those of which a detector is unsure, of many kinds, with drafts of their labels."""
