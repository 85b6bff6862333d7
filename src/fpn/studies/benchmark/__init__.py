"""`fpn benchmark`: this machine, side by side with torchvision."""
