"""Between original and network pixels, both ways."""
