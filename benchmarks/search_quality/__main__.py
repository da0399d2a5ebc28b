"""``python benchmarks/search_quality``: see `search_quality.command`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from search_quality.command import main

    main()
