"""Rules that override the backward pass of a network."""
