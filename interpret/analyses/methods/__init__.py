"""Attribution methods beside each other, on the same images."""
