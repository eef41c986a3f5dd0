"""How much features change when the image is translated, rotated, scaled or perturbed."""
