"""Whole stories told with the other floors: the demo, ablations, benchmarks."""
