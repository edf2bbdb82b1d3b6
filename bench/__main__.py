"""`make bench`: every measurement of the project, one after the other.

`TOPOD_SHORT=1` runs a short version that still prints every table.
"""

import os

from bench import (
    bench_docker,
    bench_failover,
    bench_fleet,
    bench_latency,
    bench_load,
    bench_metrics,
    bench_planner,
    bench_simulate,
    bench_thousand,
    bench_top,
)


def main() -> None:
    """Run all benchmarks; at the end, which promises are met."""
    arguments = ["--quick"] if os.environ.get("TOPOD_SHORT") else []
    bench_planner.main(arguments)
    bench_metrics.main(arguments)
    verdicts = [
        *bench_fleet.main(arguments),
        *bench_simulate.main(arguments),
        *bench_thousand.main(arguments),
        *bench_top.main(arguments),
        *bench_load.main(arguments),
        *bench_latency.main(arguments),
        *bench_docker.main(arguments),
        *bench_failover.main(arguments),
    ]
    print("\nwhat was promised of speed, of a fleet and under load")
    for verdict in verdicts:
        print(verdict.show())


if __name__ == "__main__":
    main()
