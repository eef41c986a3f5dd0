"""What a network answers when a part of the image is hidden."""
