"""Whole stories told with the layers below: the demo, ablations, benchmarks."""
