"""Projections of a neuron's activation back to pixels."""
