"""Where the rows of a task come from, and the tasks that they are.

TFDS, or a benchmark's unzipped download (`official`) -> `sources`: rows
a user's files -> `own_files`: rows, already as text to text
rows, cast to text -> `text_to_text`: a task with ids, fields and scores
"""
