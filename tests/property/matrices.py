"""Random matrices, and the styles in which they are passed around."""

from dataclasses import dataclass, replace
from random import Random

from hypothesis import strategies as st

from topod.discovery.parse_smi_topo import GpuRow, Matrix

TOKENS = ("SYS", "NODE", "PHB", "PXB", "PIX", "NV1", "NV2", "NV12", "NV18")
LISTS = ("0-3", "0-23,48-71", "128-255,384-511", "1-1", "0", "0,2,4,6,8,10", "0-0,8-8")
LEGEND = (
    "",
    "Legend:",
    "",
    "  X    = Self",
    "  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes (e.g., QPI/UPI)",
    "  NV#  = Connection traversing a bonded set of # NVLinks",
)


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a matrix is written down."""

    spaces: bool = False
    strip: bool = False
    escape: str = ""
    newline: str = "\n"
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    prefix: str = ""
    lead: bool = True
    soc: bool = False


ESCAPES = ("", "\x1b[{}m", "^[[{}m", "[{}m", "\\x1b[{}m")
STYLES = st.builds(
    Style,
    spaces=st.booleans(),
    strip=st.booleans(),
    escape=st.sampled_from(ESCAPES),
    newline=st.sampled_from(["\n", "\r\n"]),
    before=st.sampled_from(
        [(), ("$ nvidia-smi topo -m",), ("GPU topology:", ""), ("Note: GPU0 was found", "")]
    ),
    after=st.sampled_from([(), LEGEND, ("", "[root@host ~]# "), ("(legend trimmed)",)]),
    prefix=st.sampled_from(["", "", "# ", "    "]),
    lead=st.booleans(),
    soc=st.booleans(),
)


@st.composite
def matrices(draw: st.DrawFn, *, blanks: bool = True) -> tuple[Matrix, int]:
    """Return a matrix and the number of its affinity columns."""
    gpus = draw(st.sampled_from([1, 2, 2, 3, 4, 6, 8, 16]))
    nics = draw(st.integers(0, 4))
    named = draw(st.sampled_from(["NIC{}", "mlx5_{}", "mlx5_bond_{}"]))
    names = tuple(named.format(n) for n in range(nics))
    count = gpus + nics
    cells = [["X"] * count for _ in range(count)]
    chosen = Random(
        draw(st.integers(0, 2**32))
    )  # one draw for all cells: drawing each takes 100 times as long
    for i in range(count):
        for j in range(i):
            cells[i][j] = cells[j][i] = chosen.choice(TOKENS if i < gpus else TOKENS[:5])
    columns = draw(st.integers(0, 3))
    rows = tuple(draw(gpu_rows(index, columns, blanks=blanks)) for index in range(gpus))
    with_nic_rows = draw(st.booleans())
    legend = draw(st.booleans()) and named == "NIC{}"
    matrix = Matrix(
        gpus=rows,
        links=tuple(tuple(row[:gpus]) for row in cells[:gpus]),
        nics=names,
        nic_links=tuple(tuple(row[gpus:]) for row in cells[:gpus]) if nics else (),
        nic_rows=tuple(tuple(row[gpus:]) for row in cells[gpus:]) if with_nic_rows else (),
        nic_devices=tuple((name, f"rocep{n}s0f0") for n, name in enumerate(names)) if legend else (),
    )
    return matrix, columns


@st.composite
def gpu_rows(draw: st.DrawFn, index: int, columns: int, *, blanks: bool) -> GpuRow:
    lists = st.sampled_from(LISTS)
    cpus = draw(st.none() | lists if blanks else lists) if columns else None
    numa = None
    if columns > 1:
        known = st.sampled_from(["0", "1", "17", "N/A", "0-1", "0,5-11"])
        numa = draw(st.none() | known if blanks else known)
    own = draw(st.sampled_from(["N/A", "N/A", "4"])) if columns > 2 else None
    return GpuRow(index=index, cpus_text=cpus, numa_text=numa, gpu_numa_id_text=own)


def render(matrix: Matrix, columns: int, style: Style, *, mirror: Matrix | None = None) -> str:
    """Write `matrix` as nvidia-smi prints it, changed by what `style` says; the NIC rows are those of `mirror`."""
    labels = [f"GPU{gpu.index}" for gpu in matrix.gpus] + list(matrix.nics)
    headings = ["CPU Affinity", "NUMA Affinity", "GPU NUMA ID"][:columns]
    lines = [("\t" if style.lead else "") + _marked("\t".join([*labels, *headings]), style)]
    for gpu in matrix.gpus:
        nics = matrix.nic_links[gpu.index] if matrix.nics else ()
        cells = [*matrix.links[gpu.index], *nics]
        lines.append(f"GPU{gpu.index}\t" + _cells(cells, style) + _affinity(gpu, columns))
    for n, row in enumerate(matrix.nic_rows):
        cells = [links[n] for links in (mirror or matrix).nic_links]
        tail = "\t" * (columns + (columns > 2))
        lines.append(f"{matrix.nics[n]}\t" + _cells([*cells, *row], style) + tail)
    if style.spaces:
        lines = [line.expandtabs(8) for line in lines]
    if style.strip:
        lines = [line.rstrip(" ") if not style.spaces else line.rstrip() for line in lines]
    legend = [f"  {nic}: {device}" for nic, device in matrix.nic_devices]
    legend = ["", "NIC Legend:", "", *legend] if legend else []
    after = [*legend, *style.after] if style.after != LEGEND else [*style.after, *legend]
    return (
        style.newline.join([*style.before, *(style.prefix + line for line in lines), *after]) + style.newline
    )


def _marked(text: str, style: Style) -> str:
    return style.escape.format(4) + text + style.escape.format(0) if style.escape else text


def _cells(cells: list[str], style: Style) -> str:
    shown = [" X " if cell == "X" else "SOC" if cell == "SYS" and style.soc else cell for cell in cells]
    return "\t".join(shown)


def _affinity(gpu: GpuRow, columns: int) -> str:
    text = ""
    if columns:
        text += "\t" + (gpu.cpus_text or "")
    if columns > 1:
        text += ("\t\t" if gpu.numa_text == "N/A" else "\t") + (gpu.numa_text or "")
    if columns > 2:
        text += "\t\t" + (gpu.gpu_numa_id_text or "")
    return text


def with_cell(matrix: Matrix, row: int, column: int, token: str) -> Matrix:
    """Return `matrix` with one cell of a GPU's row replaced."""
    gpus = len(matrix.gpus)
    links = [list(each) for each in matrix.links]
    nic_links = [list(each) for each in matrix.nic_links]
    if column < gpus:
        links[row][column] = token
    else:
        nic_links[row][column - gpus] = token
    return replace(matrix, links=tuple(map(tuple, links)), nic_links=tuple(map(tuple, nic_links)))
