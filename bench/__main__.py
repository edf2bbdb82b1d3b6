"""`make bench`: every measurement of the project, one after the other.

`TOPOD_SHORT=1` runs a short version that still prints every table.
"""

import os

from bench import bench_planner


def main() -> None:
    """Run all benchmarks."""
    bench_planner.main(["--quick"] if os.environ.get("TOPOD_SHORT") else [])


if __name__ == "__main__":
    main()
