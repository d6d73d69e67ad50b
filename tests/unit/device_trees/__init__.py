"""File trees of devices that are not here, as the facts of their makers and users describe them; ``build`` writes one below a folder.

Each tree has what the agent reads and something of what it must not stumble over. They are made from a few lines each, so that
nobody has to look after thousands of files.
"""

from .boards import BOARDS
from .computers import COMPUTERS
from .parts import Tree, build

TREES: dict[str, Tree] = {**BOARDS, **COMPUTERS}

__all__ = ["TREES", "Tree", "build"]
