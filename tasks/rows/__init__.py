"""Where the rows of a task come from, before they are cast.

TFDS, or a benchmark's unzipped download (`official`) -> `sources`: rows
a user's files -> `own_files`: rows, already as text to text
"""
