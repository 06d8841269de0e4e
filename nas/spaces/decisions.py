from nas.spaces.space import *  # noqa: F403
from nas.spaces.space import SearchSpace, Value, Values  # noqa: F401
