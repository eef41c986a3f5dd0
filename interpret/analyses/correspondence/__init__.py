"""Whether hiding the same part changes features of different images alike."""
