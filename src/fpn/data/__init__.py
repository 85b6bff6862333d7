"""Datasets: labelled pictures in, samples out. This wing never sees detectors and is never seen by them."""

from fpn.data.dataset import Dataset, Sample

__all__ = ["Dataset", "Sample"]
