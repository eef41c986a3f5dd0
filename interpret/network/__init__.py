"""A network: its layers, weights and preprocessing, and how it is called."""
