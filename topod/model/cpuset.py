"""A set of CPUs (hardware threads), held as a bit mask and written the kernel's way: `0-3,8`."""

from collections.abc import Iterable, Iterator
from typing import Final, Self, final

MAX_CPU: Final = 8191  # NR_CPUS of the largest kernels that distributions ship (x86 maxsmp)


@final
class CpuSet:
    """An immutable set of CPU numbers. `mask` has bit n set when CPU n belongs to it.

    Not a dataclass, so that the message codec writes it as a CPU list and not as a number of 512 bits.
    """

    __slots__ = ("mask",)
    mask: int

    def __init__(self, mask: int = 0) -> None:
        object.__setattr__(self, "mask", mask)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a CpuSet never changes: {name}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CpuSet) and self.mask == other.mask

    def __hash__(self) -> int:
        return hash(self.mask)

    def __repr__(self) -> str:
        return f"CpuSet.parse({str(self)!r})"

    def __reduce__(self) -> tuple[type[Self], tuple[int]]:
        return (type(self), (self.mask,))

    @classmethod
    def of(cls, cpus: Iterable[int]) -> Self:
        """Return the set of the given CPU numbers."""
        mask = 0
        for cpu in cpus:
            if not 0 <= cpu <= MAX_CPU:
                raise ValueError(f"CPU number out of range: {cpu}")
            mask |= 1 << cpu
        return cls(mask)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a kernel CPU list such as `0-3,8` (Documentation/admin-guide/cputopology.rst).

        Raises `ValueError` on anything else; the empty text is the empty set.
        """
        mask = 0
        for part in text.strip().split(","):
            if not part.strip():
                if text.strip():
                    raise ValueError(f"not a CPU list: {text!r}")
                continue
            first, dash, last = part.strip().partition("-")
            if not first.isdecimal() or (dash and not last.isdecimal()):
                raise ValueError(f"not a CPU list: {text!r}")
            low, high = int(first), int(last or first)
            if high < low or high > MAX_CPU:
                raise ValueError(f"not a CPU list: {text!r}")
            mask |= ((1 << (high - low + 1)) - 1) << low
        return cls(mask)

    def __str__(self) -> str:
        parts: list[str] = []
        mask, cpu = self.mask, 0
        while mask:
            skip = (mask & -mask).bit_length() - 1
            mask >>= skip
            cpu += skip
            run = (~mask & (mask + 1)).bit_length() - 1
            parts.append(str(cpu) if run == 1 else f"{cpu}-{cpu + run - 1}")
            mask >>= run
            cpu += run
        return ",".join(parts)

    def __iter__(self) -> Iterator[int]:
        mask = self.mask
        while mask:
            low = mask & -mask
            yield low.bit_length() - 1
            mask ^= low

    def __len__(self) -> int:
        return self.mask.bit_count()

    def __bool__(self) -> bool:
        return self.mask != 0

    def __contains__(self, cpu: int) -> bool:
        return cpu >= 0 and bool(self.mask >> cpu & 1)

    def __or__(self, other: Self) -> Self:
        return type(self)(self.mask | other.mask)

    def __and__(self, other: Self) -> Self:
        return type(self)(self.mask & other.mask)

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.mask & ~other.mask)

    def __le__(self, other: Self) -> bool:
        return not self.mask & ~other.mask


NO_CPUS = CpuSet()
