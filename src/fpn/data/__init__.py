"""Datasets: reading, drawing, augmenting and loading pictures with their boxes."""
