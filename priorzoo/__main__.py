"""``python -m priorzoo`` is the command ``priorzoo``."""

import sys

from priorzoo.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
