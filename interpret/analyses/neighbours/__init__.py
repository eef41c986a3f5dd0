"""Nearest neighbours in feature space."""
