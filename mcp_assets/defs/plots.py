"""Plots: small pictures for the metadata of materializations, as PNG."""

import io
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure

from mcp_assets.graph import EDGE_COLOURS, EdgeType

_WIDTH_IN, _HEIGHT_IN, _DPI = 4.8, 2.0, 80


def strengths_png(strengths: Mapping[EdgeType, Sequence[int]]) -> bytes:
    """Edges by strength, 0 to 1 in equal bins, one colour a type of edge, stacked."""
    # No pyplot: it keeps figures and a backend for the whole process.
    with matplotlib.rc_context({"font.size": 7}):
        figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), dpi=_DPI)
        # Fixed places and one outline a type: laying out and single bars would take three times as long.
        axes = figure.add_axes((0.09, 0.2, 0.89, 0.76))
        bins = len(next(iter(strengths.values())))
        borders = [number / bins for number in range(bins + 1)]
        below = [0] * bins
        for edge_type in EdgeType:
            counts = strengths.get(edge_type)
            if counts is not None:
                top = [low + count for low, count in zip(below, counts, strict=True)]
                label = edge_type.value.replace("_", " ")
                axes.stairs(top, borders, baseline=below, fill=True, label=label, color=EDGE_COLOURS[edge_type])
                below = top
        axes.set_xlim(0, 1)
        axes.set_xlabel("strength")
        axes.set_ylabel("edges")
        axes.legend(frameon=False, fontsize=6, loc="upper left")
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
    return picture.getvalue()
