"""Whether masking the same part changes the features of different images alike."""
