"""Sanity check: whether attribution maps depend on the network's weights."""
