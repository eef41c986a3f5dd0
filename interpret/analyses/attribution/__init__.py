"""Attribution maps of a network's output, most of them computed by captum."""
