"""Network inputs from folders, tensors and data sets, and tensors as displayable images."""
