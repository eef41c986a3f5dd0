"""Attribution methods side by side, on the same images."""
