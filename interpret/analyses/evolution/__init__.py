"""How units form during training."""
