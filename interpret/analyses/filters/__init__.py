"""The weights of a layer as pictures."""
