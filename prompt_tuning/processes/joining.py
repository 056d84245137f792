"""Joining the processes of a run, and leaving them.

    COORDINATOR, PROCESS_ID, NUM_PROCESSES -> `jax.distributed` -> `count`
    Slurm's step, Open MPI's job           -^

Process 0 serves the others at the coordinator's address; that is JAX's
coordination service, which also notices who stops answering.
"""

from collections.abc import Iterator, Mapping
import contextlib
import logging
import os
import re
import sys

import jax

from prompt_tuning.processes import watch

AUTO = "auto"
_WAIT = 300  # seconds that the processes of a run may start apart
_HEARTBEAT = 30  # seconds without an answer after which a process is lost
_CLUSTERS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
"""How many processes Slurm's `srun` and Open MPI's `mpirun` have started."""


def join(
  coordinator: str | None = None,
  process_id: int | None = None,
  num_processes: int | None = None,
) -> None:
  """Joins the processes of a run; before JAX is used for anything else.

  Args:
    coordinator: COORDINATOR, where process 0 is reached: `host:port`. "auto"
      lets JAX ask the cluster (a TPU pod, Kubernetes). None asks it where
      Slurm or Open MPI has started several processes.
    process_id: PROCESS_ID, which of them this is, from 0.
    num_processes: NUM_PROCESSES, how many there are; 1 joins nothing.

  Raises:
    ValueError: one of the three is missing or cannot be.
    OSError: not all of them came.
  """
  if jax.distributed.is_initialized():  # by whoever calls this as a library
    return
  given = {
    "COORDINATOR": coordinator,
    "PROCESS_ID": process_id,
    "NUM_PROCESSES": num_processes,
  }
  is_auto = coordinator == AUTO
  if num_processes == 1 and num_processes is not True:
    return
  if coordinator is process_id is num_processes is None:
    if not _is_started_by_cluster(os.environ):
      return
    is_auto = True
  if not is_auto:
    _check(given)
  # JAX's handler of SIGTERM would take the place of ours.
  jax.config.update("jax_enable_preemption_service", False)
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  logging.getLogger("jax._src.distributed").setLevel(logging.ERROR)
  try:
    with watch.explained(_apart("process 0 is not there"), code=2):
      jax.distributed.initialize(
        **(
          {}
          if is_auto
          else {
            "coordinator_address": coordinator,
            "process_id": process_id,
            "num_processes": num_processes,
            "cluster_detection_method": "deactivate",
          }
        ),
        initialization_timeout=_WAIT,
        heartbeat_timeout_seconds=_HEARTBEAT,
      )
  except (RuntimeError, ValueError) as error:
    raise OSError(_apart(_first_line(error))) from error
  if count() > 1:
    watch.start(number(), count())
    if not is_first():
      logging.getLogger().setLevel(logging.ERROR)


def _apart(why: str) -> str:
  """What is said where not all of them came."""
  return (
    f"The processes did not come together ({why}). Start the same command once "
    f"for each PROCESS_ID from 0 to NUM_PROCESSES - 1, within {_WAIT} seconds, "
    "with a COORDINATOR=host:port of process 0 that all of them reach and "
    "nothing else uses."
  )


def _check(given: Mapping[str, object]) -> None:
  """Refuses what cannot be joined by.

  Raises:
    ValueError: with the setting's name.
  """
  missing = [name for name, value in given.items() if value is None]
  if missing:
    have = [f"{k}={v!r}" for k, v in given.items() if v is not None]
    raise ValueError(
      f"{', '.join(have)} without {' and '.join(missing)}. Several processes "
      "need all three, COORDINATOR=host:port, PROCESS_ID and NUM_PROCESSES; a "
      "process alone needs none."
    )
  address, (which, many) = given["COORDINATOR"], map(given.get, list(given)[1:])
  for name, value, least in (
    ("NUM_PROCESSES", many, 1),
    ("PROCESS_ID", which, 0),
  ):
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if not is_whole or value < least:  # pyright: ignore
      raise ValueError(
        f"{name}={value!r} must be a whole number of {least} or more."
      )
  assert isinstance(which, int) and isinstance(many, int)
  if which >= many:
    raise ValueError(
      f"PROCESS_ID={which} of NUM_PROCESSES={many}: they are numbered from 0 "
      f"to {many - 1}."
    )
  if not re.fullmatch(r"(\S+):\d{1,5}", str(address)):
    raise ValueError(
      f"COORDINATOR={address!r} must be the host of process 0 and a free port, "
      'for example "10.0.0.1:9876", or "auto" where JAX knows the cluster.'
    )


def _is_started_by_cluster(environment: Mapping[str, str]) -> bool:
  """Whether Slurm or Open MPI has started several processes."""
  sizes = (environment.get(name, "") for name in _CLUSTERS)
  return any(size.isdigit() and int(size) > 1 for size in sizes)


def count() -> int:
  """How many processes compute the run; 1 without others."""
  return jax.process_count() if jax.distributed.is_initialized() else 1


def number() -> int:
  """Which of them this is, from 0."""
  return jax.process_index() if jax.distributed.is_initialized() else 0


def is_first() -> bool:
  """Whether this one reads and writes the run's folder, and speaks."""
  return number() == 0


def said(text: str) -> None:
  """Says something to whoever watches the run, once for all processes."""
  if is_first():
    print(text, file=sys.stderr, flush=True)


class Ended(OSError):
  """Another process is lost or has ended; the message says what is known."""


@contextlib.contextmanager
def together() -> Iterator[None]:
  """Inside, an error of one process ends all; behind it, they part.

  Raises:
    Ended: another process is lost, or has ended by an error.
  """
  try:
    yield
  except BaseException as error:
    if getattr(error, "is_agreed", False):  # all were stopped at this step
      _part()
    elif message := watch.why(error):
      raise Ended(message) from error
    else:
      watch.tell(str(error) or type(error).__name__)
    raise
  _part()


def _part() -> None:
  if watch.stop():
    with contextlib.suppress(RuntimeError):
      jax.distributed.shutdown()


def _first_line(error: Exception) -> str:
  return next(iter(str(error).splitlines()), type(error).__name__)[:200]
