"""How good a detector is: COCO AP and proposal AR."""
