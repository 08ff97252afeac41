"""Speed of what is done often, each against the plain way of doing the same work: `python -m tools.speed`."""
