"""Lets tests import the modules beside them (`references`, `tracing`), whichever way pytest imports the tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
