"""The feature maps of an image."""
