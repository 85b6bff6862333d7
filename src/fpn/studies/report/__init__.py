"""`fpn report`: what a model can do, what it can't, and why, on one page and as JSON."""
