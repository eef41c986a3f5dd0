"""How a network's outputs change when a part of the image is occluded."""
