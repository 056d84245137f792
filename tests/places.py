"""Where the tests find things."""

import pathlib

TESTS = pathlib.Path(__file__).parent
GOLDEN = TESTS / "golden"
"""Expected values, each with the script that made it from the real peer."""

ROOT = TESTS.parent
"""The checkout."""

SHARED = ROOT.parent / "shared"
"""Data beside the checkout; a test that reads it runs where it is."""
