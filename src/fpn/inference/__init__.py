"""The same detections, sooner."""
