"""One HTML file that tells of finished rows: figures, curves, score timelines with their crops, mistakes, provenance.

Everything that comes from files (names of rows, clips, tracks, people, versions) reaches the page through Jinja2's
autoescape or markupsafe; the page has no script and its content security policy allows none.
"""
