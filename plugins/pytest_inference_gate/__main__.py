"""``python -m pytest_inference_gate``: the same as the command ``inference-gate``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
