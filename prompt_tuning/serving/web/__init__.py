"""HTTP: requests -> rows of the engine -> answers in OpenAI's forms.

    body -> `completions`, `classify` -> `waiting` for rows -> JSON, events

`asked` reads a body, `app` has the routes, `prompts` those that load and
unload; `errors` are what mistakes are answered with, `metrics` what an operator
watches, `page/` is the page.
"""

__all__: list[str] = []
