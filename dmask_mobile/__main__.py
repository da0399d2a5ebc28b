"""``python -m dmask_mobile`` runs ``dmask``; launchers of several processes need a module."""

from dmask_mobile.cli import main

if __name__ == "__main__":
    main()
