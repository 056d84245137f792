"""`python -m prompt_tuning.cli`."""

import sys

from prompt_tuning import cli

if __name__ == "__main__":
  sys.exit(cli.main())
