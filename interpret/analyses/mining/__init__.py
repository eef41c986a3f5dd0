"""The images that excite each unit most."""
