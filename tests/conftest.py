"""Lets tests import the modules beside them (`references`, `tracing`), whichever way pytest imports the tests."""

import sys
from pathlib import Path

from nas.machine import let_threads_sleep

sys.path.insert(0, str(Path(__file__).parent))
let_threads_sleep()  # before any test imports torch, as the command line does
