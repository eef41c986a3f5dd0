"""How features move when the image is moved, turned, scaled or disturbed."""
