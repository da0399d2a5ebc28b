"""``python benchmarks/own_network``: see `own_network.command`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from own_network.command import main

    main()
