"""Bottom-up paths: pixels to c2, c3, ..."""
