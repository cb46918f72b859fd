"""Whole numbers that are random in the same way on every machine, forever.

Libraries change how they draw; a data set that is named by (split, seed, index) must not change with them. SplitMix64
is a dozen operations on 64-bit integers (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014), passes the usual test batteries, and starts a new independent stream for any key.
"""

MASK = (1 << 64) - 1
GOLDEN_GAMMA = 0x9E3779B97F4A7C15


def mix(value: int) -> int:
    """Scramble one 64-bit integer so that every input bit moves every output bit (SplitMix64's finaliser)."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def hash_text(text: str) -> int:
    """A 64-bit hash of a string that, unlike Python's own, is the same in every process (FNV-1a, then mixed)."""
    value = 0xCBF29CE484222325
    for byte in text.encode("utf-8"):
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return mix(value)


class SplitMix64:
    """A stream of random integers.

    Args:
        *key: any integers; the same key starts the same stream, another key an unrelated one.
    """

    def __init__(self, *key: int):
        self.state = 0
        for part in key:
            self.state = mix((self.state + GOLDEN_GAMMA + part) & MASK)

    def next(self) -> int:
        """The next integer in [0, 2**64)."""
        self.state = (self.state + GOLDEN_GAMMA) & MASK
        return mix(self.state)

    def below(self, bound: int) -> int:
        """An integer in [0, bound); for bounds as small as ours the bias is under one in 2**50."""
        return (self.next() * bound) >> 64

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high], both ends included."""
        return low + self.below(high - low + 1)

    def choice(self, items):
        """One element of a sequence."""
        return items[self.below(len(items))]

    def sample(self, items, count: int) -> list:
        """`count` different elements of a sequence, in random order."""
        pool = list(items)
        return [pool.pop(self.below(len(pool))) for _ in range(count)]
