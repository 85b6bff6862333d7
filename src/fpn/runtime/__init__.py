"""The machine: what its devices can do, and its memory."""
