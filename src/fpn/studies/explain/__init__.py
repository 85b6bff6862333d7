"""What a pyramid does with images of a size: shapes, receptive fields, anchors, equation 1, dialects."""
