"""`python -m pellucid` is `pellucid`."""

import sys

from pellucid.cli.main import main

sys.exit(main())
