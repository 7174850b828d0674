"""SQL text: identifiers and strings, and the few words that engines spell differently."""

import dataclasses

# what a float32 cannot hold would become infinite
LARGEST_FLOAT = "3.4e38"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dialect:
    """How an engine spells what standard SQL has no words for: lists.

    Attributes:
        explode: query that gives the elements of the lists of a relation `lists`, one a row: list,
            value, position.
        collect: aggregate that makes a list of the `id`s of a group, in the order of `position`.
        list_type: type of a list, with `{}` for the type of its elements.
        list_length: length of the list `{}`.
        list_any: whether a condition holds for any element `x` of the list `{}`, with `{}` for the
            condition.
        empty: list without elements.
        hash: 60 bits of the MD5 of the text `{}`, as a BIGINT.
        not_text: whether the bytes `{}` are no UTF-8; never, if the engine refuses such files.
    """

    explode: str
    collect: str
    list_type: str
    list_length: str
    list_any: str
    empty: str
    hash: str
    not_text: str

    def empty_list(self, kind: str) -> str:
        """Returns a list without elements of the given type."""
        return f"CAST({self.empty} AS {self.list_type.format(kind)})"


DUCKDB = Dialect(
    explode="SELECT list, unnest(list) AS value, generate_subscripts(list, 1) AS position "
    "FROM lists",
    collect="array_agg(id ORDER BY position)",
    list_type="{}[]",
    list_length="len({})",
    list_any="len(list_filter({}, lambda x: {})) > 0",
    empty="[]",
    hash="CAST('0x' || substr(md5({}), 1, 15) AS BIGINT)",
    not_text="false",
)
SPARK = Dialect(
    explode="SELECT list, posexplode(list) AS (position, value) FROM lists",
    collect="transform(array_sort(collect_list(struct(position, id))), e -> e.id)",
    list_type="ARRAY<{}>",
    list_length="size({})",
    list_any="exists({}, x -> {})",
    empty="array()",
    hash="CAST(conv(substr(md5({}), 1, 15), 16, 10) AS BIGINT)",
    not_text="NOT is_valid_utf8({})",
)


def quote(name: str) -> str:
    """Returns an SQL identifier."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def quote_text(text: str) -> str:
    """Returns an SQL string."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'"
