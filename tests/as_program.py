"""The command line in a process of its own, run by path where everything it imports is imported already.

`runpy.run_path` gives it `words` (those after `vitpose`), `folder` (where it runs), `out` and `errors` (files for what
it says) and `largest` (how many bytes a file may have, or None).
"""

import os
import sys
from pathlib import Path

if "words" in globals():  # looking for tests, pytest may import this file too
    os.chdir(folder)
    for number, path in ((1, out), (2, errors)):
        with Path(path).open("wb") as file:
            os.dup2(file.fileno(), number)
    if largest is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    sys.argv = ["vitpose", *words]
    from vitpose.cli import app

    app(words, prog_name="vitpose")
