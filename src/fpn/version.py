"""The version of `fpn`, said once."""

__version__ = "0.1.0"
