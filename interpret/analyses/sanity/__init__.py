"""Whether attribution maps depend on the weights."""
