"""Plots: small pictures for the metadata of materializations, as PNG."""

import io
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure

from mcp_assets.graph import EdgeType

_WIDTH_IN, _HEIGHT_IN, _DPI = 4.8, 2.0, 80


def strengths_png(strengths: Mapping[EdgeType, Sequence[int]]) -> bytes:
    """Edges by strength, 0 to 1 in equal bins, one colour a type of edge, stacked."""
    # No pyplot: it keeps figures and a backend for the whole process.
    with matplotlib.rc_context({"font.size": 7}):
        figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), dpi=_DPI, layout="constrained")
        axes = figure.add_subplot()
        bins = len(next(iter(strengths.values())))
        places = [(number + 0.5) / bins for number in range(bins)]
        below = [0] * bins
        for edge_type in EdgeType:
            counts = strengths.get(edge_type)
            if counts is not None:
                axes.bar(places, counts, 0.9 / bins, bottom=below, label=edge_type.value.replace("_", " "))
                below = [low + count for low, count in zip(below, counts, strict=True)]
        axes.set_xlim(0, 1)
        axes.set_xlabel("strength")
        axes.set_ylabel("edges")
        axes.legend(frameon=False, fontsize=6, loc="upper left")
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
    return picture.getvalue()
