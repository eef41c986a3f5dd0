"""What a network takes images for."""
