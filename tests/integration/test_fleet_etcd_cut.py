"""Coordinators, hosts and the members of etcd in networks of their own: whatever is cut off, jobs run exactly once."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.etcd_cluster import etcd_cluster
from tests.integration.fleet_in_etcd import SharedFleet
from tests.netns import Network, filters, network

MEMBERS = ("etcd0", "etcd1", "etcd2")
HEADS = ("one", "two")
HOSTS = ("a", "b")


def test_jobs_run_exactly_once_whoever_is_cut_off(tmp_path: Path) -> None:
    with network(*MEMBERS, *HEADS, *HOSTS, needs=filters) as net, etcd_cluster(tmp_path, 3, net) as etcd:

        def launch(name: str, module: str) -> Sequence[str]:
            return (*net.prefix(name), sys.executable, "-m", module) if name in net.names else ()

        addresses = {name: net.address(name) for name in HEADS}
        with SharedFleet(tmp_path, etcd, HEADS, HOSTS, addresses=addresses, launch=launch) as fleet:
            the_leader_loses_etcd(fleet, net)
            the_leader_loses_the_hosts(fleet, net)
            the_leader_of_etcd_is_cut_off(fleet, net)


def the_leader_loses_etcd(fleet: SharedFleet, net: Network) -> None:
    old, (other,) = fleet.leader_and_others()
    with fleet.stream() as stream:
        net.cut(old, *MEMBERS)
        # It has not been told, and stops all the same; who takes over could begin no earlier.
        fleet.until(lambda: "stands by" in fleet.standing(old))
        fleet.until(lambda: "leads for the" in fleet.standing(other))
        stream.goes_on()
        net.heal()
        fleet.until(lambda: fleet.heads[other].endpoint in fleet.standing(old))


def the_leader_loses_the_hosts(fleet: SharedFleet, net: Network) -> None:
    old, (other,) = fleet.leader_and_others()
    with fleet.stream() as stream:
        net.cut(old, *HOSTS)
        fleet.until(lambda: "leads for the" in fleet.standing(other))
        stream.goes_on()
        net.heal()


def the_leader_of_etcd_is_cut_off(fleet: SharedFleet, net: Network) -> None:
    with fleet.stream() as stream:
        net.cut(f"etcd{fleet.etcd.leader()}")
        stream.goes_on()
        net.heal()
