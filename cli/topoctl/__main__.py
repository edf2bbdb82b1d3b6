"""`python -m topoctl`."""

from topoctl.start import main

if __name__ == "__main__":
    main()
