"""Backbone, head and weights made one: the models, and the cards that say what they are."""
