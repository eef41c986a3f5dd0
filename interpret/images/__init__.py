"""What a network is shown: folders, tensors and data sets as inputs."""
