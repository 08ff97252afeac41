"""A report on finished rows in one HTML file: figures, curves, score timelines with crops, mistakes, provenance.

All text from files (names of rows, clips, tracks, people, versions) is escaped by Jinja2 or markupsafe. The page has no
script, and its content security policy allows none.
"""
