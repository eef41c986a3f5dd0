"""Effective receptive fields: how much of its receptive field a layer uses on data."""
