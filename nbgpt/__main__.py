"""`python -m nbgpt`."""

import sys

try:
    from .cli.main import main

    sys.exit(main())
except KeyboardInterrupt:  # while modules were still being imported
    sys.exit(130)
