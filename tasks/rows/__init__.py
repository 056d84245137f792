"""Where the rows of a benchmark come from, before they are cast.

TFDS, or a benchmark's unzipped download (`official`) -> `sources`: rows
"""
