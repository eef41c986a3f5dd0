"""The top-activating images of each unit."""
