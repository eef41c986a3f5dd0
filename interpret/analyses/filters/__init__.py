"""Kernels of a layer as images."""
