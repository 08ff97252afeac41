"""What is run, on what, and how it is scored."""
