"""Synthesis: images made for a unit, a class, a layer or a direction by optimisation."""
