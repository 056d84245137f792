"""Serving: one frozen model answers for many named prompts at once.

    name, text -> `bank`: tokens -> `rows` -> `engine` -> ids

The engine puts `rows` that come into free `slots` and lets all of them take
one place after the other (`picking` says which token); `programs` are compiled
ahead for the shapes of `sizes`. A `service` has all of it and the `shelf` of
prompts that may be loaded; `settings` are what it is started with, `web/` is
its HTTP, and `server` listens.
"""

__all__ = ["server", "settings"]
