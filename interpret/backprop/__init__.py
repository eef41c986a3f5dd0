"""How a signal passes back through a network."""
