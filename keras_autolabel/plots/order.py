"""The order of buckets in every figure: clean on the left, whatever the table's own direction."""

from collections.abc import Sequence

import numpy as np


def clean_first(distance: np.ndarray) -> np.ndarray:
    """The order along the last axis of a table that puts the cleanest bucket first.

    Args:
        distance: float ``bucket_shape``, mean distance of each bucket.

    Returns:
        int [N], indices into the last axis, by distance averaged over all other axes.

    Example:
        >>> clean_first(np.array([[0.9, 0.5, 0.1], [0.8, 0.4, 0.2]])).tolist()
        [2, 1, 0]
    """
    rows = np.reshape(distance, (-1, np.shape(distance)[-1]))
    return np.argsort(rows.mean(axis=0), kind="stable")


def sorted_rows(table: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """A table, or one table per epoch, as rows with the cleanest bucket first.

    Args:
        table: float [..., *bucket_shape].
        distance: float ``bucket_shape``.

    Returns:
        float [..., rows, N]; a table of one axis has one row.

    Raises:
        ValueError: If the last axes of the table are not those of ``distance``.
    """
    table, distance = np.asarray(table), np.asarray(distance)
    leading = table.ndim - distance.ndim
    if distance.ndim == 0 or leading < 0 or table.shape[leading:] != distance.shape:
        raise ValueError(
            "distance must have the shape of the label table. "
            f"Received: distance {distance.shape}, table {table.shape}"
        )
    rows = np.reshape(table, (*table.shape[:leading], -1, distance.shape[-1]))
    return rows[..., clean_first(distance)]


def evenly(size: int, most: int) -> np.ndarray:
    """At most ``most`` indices below ``size``, evenly spaced, both ends among them.

    Example:
        >>> evenly(10, 4).tolist(), evenly(3, 4).tolist()
        ([0, 3, 6, 9], [0, 1, 2])
    """
    return np.ceil(np.linspace(0, size - 1, min(size, most)) - 0.5).astype(int)


def titles_of_rows(num_rows: int, row_names: Sequence[str] | None) -> list[str]:
    """What stands above each row of a table: nothing above a single row, else its depth."""
    if row_names is not None:
        if len(row_names) != num_rows:
            raise ValueError(
                f"row_names must name the table's {num_rows} rows. Received: {len(row_names)}"
            )
        return list(row_names)
    return [""] if num_rows == 1 else [f"depth {row + 1}" for row in range(num_rows)]
