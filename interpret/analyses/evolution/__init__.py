"""How units change during training."""
