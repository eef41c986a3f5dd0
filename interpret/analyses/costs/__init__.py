"""Parameters, operations and accuracy of known networks."""
