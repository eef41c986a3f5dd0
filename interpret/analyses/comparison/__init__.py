"""Which units differ between two checkpoints."""
