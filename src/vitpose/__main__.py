"""`python -m vitpose`: the same as the command `vitpose`."""

from .cli import app

app(prog_name="vitpose")
