"""Datasets: labelled images in, samples out. This subpackage never sees detectors and is never seen by them."""

from fpn.data.dataset import Dataset, Sample
from fpn.data.formats.open import list_splits, open_dataset
from fpn.data.limits import Limits
from fpn.data.split import divide, split_dataset

__all__ = ["Dataset", "Limits", "Sample", "divide", "list_splits", "open_dataset", "split_dataset"]
