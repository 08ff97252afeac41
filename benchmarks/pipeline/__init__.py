"""The straight line from frames to a row of the table."""
