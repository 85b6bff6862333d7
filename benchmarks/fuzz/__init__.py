"""Throws broken and hostile input at every reader: `python -m fuzz --help` in `benchmarks/`."""
