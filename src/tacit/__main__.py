"""`python -m tacit` is `tacit`."""

import sys

from tacit.cli.main import main

sys.exit(main())
