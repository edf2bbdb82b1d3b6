"""Jobs that hold GPUs and do not use them, as the map tells them."""

from topoctl.commands.topo_live import idle_notes
from topod.protocol.views import GpuView, HostView


def gpu(index: int, job: int | None, idle_since: float | None) -> GpuView:
    return GpuView(
        index=index, uuid=f"GPU-{index}", name="", numa_node=0, state="held", job=job, idle_since=idle_since
    )


def host(*gpus: GpuView) -> HostView:
    return HostView(
        name="h", emulated=True, runtime="process", drain=None, generation=1, document={}, gpus=list(gpus)
    )


def test_jobs_that_do_not_use_their_gpus_are_named_after_ten_minutes() -> None:
    view = host(gpu(0, 7, 1000.0), gpu(1, 7, 4000.0), gpu(2, 8, 8500.0), gpu(3, None, 0.0), gpu(4, 9, None))
    assert idle_notes(view, 8200.0) == ["job 7 has not used GPUs 0-1 for 1h10m"]
    assert idle_notes(view, 9100.0) == [
        "job 7 has not used GPUs 0-1 for 1h25m",
        "job 8 has not used GPU 2 for 10m00s",
    ]
