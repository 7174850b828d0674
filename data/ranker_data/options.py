"""The options of the loader."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """How batches are cut, and by whom.

    Attributes:
        batch_size: rows of a global batch, over all ranks.
        max_length: a sample sees at most this many of its latest behaviours.
        num_streams: logical streams; a multiple of the world size. The sample order depends on it.
            null takes the largest power of two up to 16 and up to the number of parts of the data.
        samples_per_user: how many samples of one user stay together when rows are shuffled; 1 is
            the usual row shuffle.
        max_behaviors: most behaviours of a batch on one rank. A batch with more is computed in
            micro-batches, which changes no loss; null sets no bound.
        cache_dir: folder for packed copies of the data sets, which are mapped into memory instead
            of reading Parquet; best on a local disk. null reads Parquet into memory, a generation
            at a time.
        num_workers: processes per rank that build batches; 0 builds them in the rank's own process.
            Workers share the pages of the cache, so they need `cache_dir`.
        prefetch: batches that each worker builds ahead.
        worker_timeout_seconds: a worker that has not delivered for so long ends the run with an
            error.
    """

    batch_size: int
    max_length: int
    num_streams: int | None = None
    samples_per_user: int = 1
    max_behaviors: int | None = None
    cache_dir: str | None = None
    num_workers: int = 0
    prefetch: int = 8
    worker_timeout_seconds: float = 300.0

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_length", "num_streams", "samples_per_user", "prefetch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.max_behaviors is not None and self.max_behaviors < self.max_length:
            raise ValueError(
                f"max_behaviors ({self.max_behaviors}) must be at least max_length "
                f"({self.max_length}), because the history of one sample is not split"
            )
        if self.num_workers < 0:
            raise ValueError(f"num_workers must be at least 0, got {self.num_workers}")
        if self.num_workers and self.cache_dir is None:
            raise ValueError(
                f"num_workers is {self.num_workers} and cache_dir is null; workers share the "
                "packed cache, so give a folder on a local disk as loader.cache_dir, or set "
                "loader.num_workers=0"
            )
        if self.worker_timeout_seconds <= 0:
            raise ValueError(
                f"worker_timeout_seconds must be positive, got {self.worker_timeout_seconds}"
            )
