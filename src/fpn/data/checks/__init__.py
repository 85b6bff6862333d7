"""What is wrong with a whole dataset, and a repaired copy of it."""
