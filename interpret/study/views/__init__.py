"""Views of a study for galleries and reports: its network, layers, units and images, read without torch."""
