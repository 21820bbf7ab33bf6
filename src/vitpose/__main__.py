"""`python -m vitpose`: the same as the command `vitpose`."""

from .cli import main

if __name__ == "__main__":  # worker processes import this module too
    main()
