"""``python -m fleetcast.runtime.vote``: one process of a vote, told by its standard input."""

import sys

from fleetcast.runtime.vote.process import main

if __name__ == "__main__":
    sys.exit(main())
