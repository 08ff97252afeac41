"""Models made of a backbone, a head and their weights, with model cards."""
