"""Configuration: recipe, dataset and command line merged into one frozen recipe."""
