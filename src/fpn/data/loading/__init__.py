"""Images and objects to batches: order, augmentation, workers."""
