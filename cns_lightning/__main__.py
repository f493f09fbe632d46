"""``python -m cns_lightning``."""

import sys

from cns_lightning.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
