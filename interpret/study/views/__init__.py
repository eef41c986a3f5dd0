"""What galleries and reports show of a study: its network, layers, units and pictures, read without torch."""
