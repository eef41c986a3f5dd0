"""What excites a neuron, projected back to pixels."""
