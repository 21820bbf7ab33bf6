"""`python -m vitpose`: the same as the command `vitpose`."""

from .cli import app

if __name__ == "__main__":  # worker processes import this module too
    app(prog_name="vitpose")
