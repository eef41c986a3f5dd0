"""What everything may use, and knows nothing of networks."""
