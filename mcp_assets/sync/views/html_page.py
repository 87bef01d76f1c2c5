"""HTML page: a graph as one self-contained page, with zoom, names, and filters by edge type and strength."""

import html
import json

import igraph
import plotly.graph_objects as go

_COLOURS = {
    "semantic_similarity": "#4c78a8",
    "topical_relevance": "#72b7b2",
    "sequential_dependency": "#e45756",
    "conceptual_hierarchy": "#b279a2",
    "cross_reference": "#f58518",
}
"""Of our edge types: five colours of one palette, far apart in hue."""

_OTHER = "#888888"
"""The colour of the edge types of other programs."""

_VERTEX_COLOURS = ("#2f4b7c", "#ffa600", "#4f9d69", "#d45087", "#a05195", "#665191")
"""Of entity types, in the order of their names; they repeat after the sixth."""


def html_page_of(graph: igraph.Graph) -> str:
    """The page, as text. Vertices need `name`, `title`, `entity_type`; edges `type`, `strength`.

    The layout is computed here, so that the browser only draws. WebGL draws thousands of edges without delay.
    """
    layout = _layout(graph)
    figure = go.Figure()
    types = sorted(set(graph.es["type"])) if graph.ecount() else []
    for edge_type in types:
        figure.add_trace(
            go.Scattergl(
                x=[],
                y=[],
                mode="lines",
                name=edge_type,
                hoverinfo="skip",
                line={"width": 1, "color": _COLOURS.get(edge_type, _OTHER)},
                opacity=0.5,
            )
        )
    for number, entity_type in enumerate(sorted(set(graph.vs["entity_type"])) if graph.vcount() else []):
        held = [vertex for vertex in graph.vs if vertex["entity_type"] == entity_type]
        figure.add_trace(
            go.Scattergl(
                x=[layout[vertex.index][0] for vertex in held],
                y=[layout[vertex.index][1] for vertex in held],
                mode="markers",
                name=entity_type,
                text=[html.escape(f"{vertex['title'] or ''} ({vertex['name']})") for vertex in held],
                hoverinfo="text",
                marker={"size": 7, "color": _VERTEX_COLOURS[number % len(_VERTEX_COLOURS)]},
            )
        )
    axis = {"visible": False, "showgrid": False, "zeroline": False}
    figure.update_layout(
        xaxis=axis,
        yaxis={**axis, "scaleanchor": "x"},
        legend={"x": 0.01, "y": 0.99, "bgcolor": "rgba(255, 255, 255, 0.8)"},
        plot_bgcolor="white",
        dragmode="pan",
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        hovermode="closest",
    )
    plot = figure.to_html(
        full_html=False,
        include_plotlyjs=True,
        div_id="graph",
        default_height="100%",
        config={"scrollZoom": True, "displaylogo": False},
    )
    edges: dict[str, list[tuple[int, int, float]]] = {edge_type: [] for edge_type in types}
    for edge in graph.es:
        edges[edge["type"]].append((edge.source, edge.target, round(edge["strength"], 4)))
    return _PAGE.format(
        plot=plot,
        # "</script>" in a name must not end the script.
        places=_script_json([[round(x, 3), round(y, 3)] for x, y in layout]),
        edges=_script_json(edges),
        types=_script_json(types),
    )


def _layout(graph: igraph.Graph) -> list[list[float]]:
    """Coordinates of each vertex: strong edges draw their ends together. The same graph gets the same layout."""
    if not graph.vcount():
        return []
    weights = [max(strength, 0.01) for strength in graph.es["strength"]] if graph.ecount() else None
    seed = graph.layout_circle()
    found = graph.layout_fruchterman_reingold(weights=weights, seed=seed, grid="auto", niter=150)
    return [list(map(float, place)) for place in found.coords]


def _script_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace("</", "<\\/")


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Relationships</title>
<style>
body {{ margin: 0; font: 14px system-ui, sans-serif; }}
#filters {{ display: flex; flex-wrap: wrap; gap: 1em; padding: .6em 1em; border-bottom: 1px solid #ddd; }}
#plot {{ height: calc(100vh - 3.2em); }}
</style></head><body>
<div id="filters"><span id="types"></span>
<label>strength from <input id="strength" type="range" min="0" max="1" step="0.01" value="0"> <output>0</output></label>
<span id="shown"></span></div>
<div id="plot">{plot}</div>
<script>
const places = {places}, edges = {edges}, types = {types};
const graph = document.getElementById("graph"), boxes = document.getElementById("types");
const strength = document.getElementById("strength"), shown = document.getElementById("shown");
for (const type of types) {{
  const label = document.createElement("label"), box = document.createElement("input");
  box.type = "checkbox"; box.checked = true; box.value = type; box.onchange = draw;
  label.append(box, " " + type.replaceAll("_", " ") + " (" + edges[type].length + ") ");
  boxes.append(label);
}}
strength.oninput = draw;
function draw() {{
  const least = Number(strength.value), xs = [], ys = [];
  let count = 0;
  document.querySelector("output").value = least.toFixed(2);
  const chosen = new Set([...boxes.querySelectorAll("input:checked")].map(box => box.value));
  for (const type of types) {{
    const x = [], y = [];
    if (chosen.has(type)) for (const [source, target, held] of edges[type]) if (held >= least) {{
      x.push(places[source][0], places[target][0], null);
      y.push(places[source][1], places[target][1], null);
      count += 1;
    }}
    xs.push(x); ys.push(y);
  }}
  shown.textContent = count + " edges";
  if (types.length) Plotly.restyle(graph, {{x: xs, y: ys}}, types.map((_, number) => number));
}}
draw();
</script></body></html>
"""
