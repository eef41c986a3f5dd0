"""Attribution maps of a network's answer, most of them by captum."""
