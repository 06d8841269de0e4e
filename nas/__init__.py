"""Search an image network whose mix of token mixers is best under a budget, and train it from scratch."""

from pathlib import Path

__version__ = "0.2.0"
HOME = Path(__file__).resolve().parent.parent  # where search_spaces/ and recipes/ are
