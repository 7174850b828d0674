"""What a user chooses about embedding tables: widths, sizes, hashing."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnifiedOptions:
    """One table of hashed rows for many id spaces: feature multiplexing (2305.12102, section 3).

    Each id space reads `lookups` rows for an id, each with a hash of its own, side by side. So
    widths differ by id space although all rows have one width. Rows are shared by chance, also
    between id spaces; the layers behind tell them apart.

    Attributes:
        rows: rows of the shared table.
        dim: width of a row.
        lookups: rows that an id of each id space (schema table) reads; id spaces that are not named
            keep a table of their own.
    """

    rows: int
    dim: int
    lookups: Mapping[str, int]

    def __post_init__(self) -> None:
        for name, value in {"rows": self.rows, "dim": self.dim}.items():
            if value < 1:
                raise ValueError(f"embedding.unified.{name} is {value}; it must be at least 1")
        if not self.lookups:
            raise ValueError("embedding.unified.lookups is empty; name at least one table")
        for name, value in self.lookups.items():
            if value < 1:
                raise ValueError(
                    f"embedding.unified.lookups.{name} is {value}; it must be at least 1"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingOptions:
    """Widths, sizes and initialisation of the tables.

    Attributes:
        dim: width of every table that `dims` does not name.
        dims: width by table name.
        init_std: standard deviation of the normal initialisation.
        hashed: rows by table name: ids of this table, however many there are, are hashed into so
            many rows.
        unified: a table that several id spaces share; None gives each its own.
        hash_seed: of the hashes; another seed lets other ids collide.
    """

    dim: int
    dims: Mapping[str, int] = dataclasses.field(default_factory=dict)
    init_std: float = 0.01
    hashed: Mapping[str, int] = dataclasses.field(default_factory=dict)
    unified: UnifiedOptions | None = None
    hash_seed: int = 0

    def __post_init__(self) -> None:
        for name, dim in {"dim": self.dim, **self.dims}.items():
            if dim < 1:
                raise ValueError(f"embedding width of {name} must be at least 1, got {dim}")
        for name, rows in self.hashed.items():
            if rows < 1:
                raise ValueError(f"embedding.hashed.{name} is {rows}; it must be at least 1")
        for name in self.lookups:
            for option in ("dims", "hashed"):
                if name in getattr(self, option):
                    raise ValueError(
                        f"embedding.{option} names {name!r}, which embedding.unified.lookups puts "
                        "into the shared table; keep one of the two"
                    )

    @property
    def lookups(self) -> Mapping[str, int]:
        """Rows that an id reads in the shared table, by id space."""
        return {} if self.unified is None else self.unified.lookups

    def dim_of(self, table: str) -> int:
        """Returns the width of what an id of an id space becomes."""
        if self.unified is not None and table in self.lookups:
            return self.lookups[table] * self.unified.dim
        return self.dims.get(table, self.dim)
