"""The most probable classes of images."""
