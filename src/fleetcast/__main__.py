"""``python -m fleetcast`` is the command ``fleetcast``."""

import sys

from fleetcast.view.cli import main

sys.exit(main())
