"""The same detections, sooner."""

from fpn.inference.optimize import OptimizedDetector, optimize

__all__ = ["OptimizedDetector", "optimize"]
