"""What a network is: its layers, its weights, its inputs, and how it is called."""
