"""The images that are nearest in feature space."""
