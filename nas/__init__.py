"""Search an image network whose mix of token mixers is best under a budget, and train it from scratch."""

__version__ = "0.2.0"
