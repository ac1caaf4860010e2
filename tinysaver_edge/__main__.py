"""`python -m tinysaver_edge`: the command line where its script is not installed."""

from tinysaver_edge.cli import main

if __name__ == "__main__":
    main()
