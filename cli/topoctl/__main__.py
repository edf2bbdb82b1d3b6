"""`python -m topoctl`."""

from topoctl.main import main

if __name__ == "__main__":
    main()
