"""``python -m dmask_mobile`` is ``dmask``: launchers of several processes start modules."""

from dmask_mobile.cli import main

if __name__ == "__main__":
    main()
