"""One line of a benchmark, and the table that keeps the last measurement of each."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fluidlab.config import data_dir
from fluidlab.evaluate.results import provenance, read_table, write_table


@dataclass(frozen=True)
class Row:
    """What a technique is worth.

    Args:
        what: for example "sampling raster-softmax".  technique: the last of those that are on, in words.
        batch, tokens: images at once and tokens of each.
        per_second: images a second.  speedup: over the first line of the same `what`.
        share_of_peak: of the operations a second that a large matrix product reaches, from 0 to 1; 0 = not counted.
        memory_mb: most that tensors held at once, in 10^6 bytes, weights not counted; 0 = not counted.
    """

    what: str
    technique: str
    batch: int
    tokens: int
    per_second: float
    speedup: float
    share_of_peak: float = 0.0
    memory_mb: float = 0.0

    def line(self) -> str:
        share = f"{self.share_of_peak:7.1%} of the peak" if self.share_of_peak else ""
        share += f"{self.memory_mb:9.1f} MB" if self.memory_mb else ""
        return (f"{self.what:<28} {self.technique:<44} batch {self.batch:>3} {self.per_second:12.3f} images/s "
                f"{self.speedup:7.2f} x {share}").rstrip()


COLUMNS = (*(field.name for field in fields(Row)), "threads", "torch", "commit", "command")
SAME = ("what", "technique", "batch", "tokens", "threads")


def bench_file() -> Path:
    return data_dir() / "bench.csv"


def read_bench(path: Path | None = None) -> list[dict[str, str]]:
    """All rows.

    Raises:
        ValueError: the file is missing or has other columns.
    """
    return read_table(path or bench_file(), COLUMNS, "`fluidlab bench --results`")


def keep_rows(rows: list[Row], path: Path, threads: int) -> None:
    """Add rows to a table; one that measures the same again takes the old one's place."""
    kept = {tuple(row[k] for k in SAME): row for row in (read_bench(path) if path.exists() else ())}
    for row in rows:
        numbers = {name: f"{value:.4g}" if isinstance(value, float) else str(value)
                   for name, value in asdict(row).items()}
        entry = {**numbers, "threads": str(threads), **provenance()}
        kept[tuple(entry[k] for k in SAME)] = entry
    write_table(kept.values(), COLUMNS, path)
