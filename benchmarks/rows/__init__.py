"""Rows of the table: schema, folder, record, identity, predictions."""
