"""The style, the lettering and the layout that all figures share."""
