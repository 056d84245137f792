"""Several processes that compute one run: who they are, what they agree on.

    COORDINATOR, PROCESS_ID, NUM_PROCESSES, or the cluster -> `join`
    one of them reads and writes the run's folder, and speaks -> `is_first`
    what it knows, all know -> `told`, `known`; what one was asked -> `agreed`
    what lies on the devices of all -> `on_host` of each, `on_first` of one
    whether no process has the whole -> `is_spread`, then `kept` apart
    one that is lost, or ends by an error, ends the others -> `watch`

A process alone joins nothing, and all of it is trivial.
"""

from prompt_tuning.processes.agreement import (
  agreed,
  between_batches,
  check_same,
  is_asked,
  is_spread,
  kept,
  known,
  on_first,
  on_host,
  own_parts,
  told,
)
from prompt_tuning.processes.joining import (
  Ended,
  count,
  is_first,
  join,
  number,
  said,
  together,
)
from prompt_tuning.processes.watch import LOST, leave

__all__ = [
  "LOST",
  "Ended",
  "agreed",
  "between_batches",
  "check_same",
  "count",
  "is_asked",
  "is_first",
  "is_spread",
  "join",
  "kept",
  "known",
  "leave",
  "number",
  "on_first",
  "on_host",
  "own_parts",
  "said",
  "together",
  "told",
]
