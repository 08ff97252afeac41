"""Training of heads, and of backbone and head together."""
