"""Hardware-aware search and deployment of vision networks for phones."""

import os
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("dmask-mobile")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+not.installed"

# ONNX Runtime 1.32 and newer collects usage data once it is imported: an identifier and a database in the user's
# cache, and a look-up of a host of its maker. It reads this variable at its import alone. Everything of ours imports
# this package first, and processes that we start inherit it; whoever wants the data collected can set it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
