"""Drawn scenes whose truth is exact."""
