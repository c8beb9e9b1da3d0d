"""`python -m openresource` is the command line."""

from openresource.cli.main import main

if __name__ == "__main__":
    main()
