// Draws the graph in #data with force-graph. Every text that comes from data is put in by textContent or on the canvas.
"use strict";

addEventListener("error", (event) => {
  const failure = document.getElementById("failure");
  failure.textContent = "This page has failed: " + event.message;
  failure.hidden = false;
});

const BUDGETS = [500, 1000, 2000, 5000, 10000, 20000, 50000, 100000];
// Above this, the places that were computed for the whole graph are used: laying out would block the page for seconds.
const MAX_LAID_OUT = 5000;
// Above this, a frame takes most of a second where no GPU helps, so edges are not asked whether the pointer is on them.
const MAX_POINTED_AT = 20000;
const LISTED = 100; // edges of the panel, before it is asked for the others
const MATCHES = 12;
const LABEL_CHARACTERS = 32;
const SHAPES = ["circle", "square", "triangle", "diamond", "hexagon", "star"];

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const { edges, texts, entityTypes, edgeTypes } = data;
const edgeCount = edges.source.length;
const number = new Intl.NumberFormat("en");
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

// What would not be seen, or would reorder its surroundings: control characters, marks of direction, lone surrogates.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufffe\uffff]|\p{Surrogate}/gu;
const visible = (text) => text.replace(/\s+/g, " ").replace(UNSEEN, "\ufffd");
const cut = (text, length) => {
  const characters = Array.from(text);
  return characters.length > length ? characters.slice(0, length - 1).join("").trimEnd() + "…" : text;
};
const words = (name) => visible(name).replaceAll("_", " ");

const vertices = data.vertices.id.map((id, v) => ({
  v, id, type: data.vertices.type[v], title: visible(data.vertices.title[v]),
  ref: (entityTypes[data.vertices.type[v]] + ":" + id).replace(/\p{Surrogate}/gu, "\ufffd"),
}));
const nameOf = (vertex) => vertex.title || visible(vertex.id);
for (const vertex of vertices) vertex.label = cut(nameOf(vertex), LABEL_CHARACTERS);
const byRef = new Map(vertices.map((vertex) => [vertex.ref, vertex]));

const edgesOf = vertices.map(() => []);
for (let e = 0; e < edgeCount; e++) {
  edgesOf[edges.source[e]].push(e);
  if (edges.target[e] !== edges.source[e]) edgesOf[edges.target[e]].push(e);
}
const otherEnd = (e, v) => (edges.source[e] === v ? edges.target[e] : edges.source[e]);

const links = []; // made when they are drawn for the first time
const linkOf = (e) => (links[e] ??= { e, source: edges.source[e], target: edges.target[e] });

// ---- what is shown

const state = { budget: Math.min(BUDGETS[0], edgeCount), least: 0, chosen: null, marked: null, hovered: null };
const edgeTypeOn = edgeTypes.map(() => true);
const entityTypeOn = entityTypes.map(() => true);
let shown = { edges: [], vertices: [], near: null, degree: new Map() };

function passes(e) {
  return edgeTypeOn[edges.type[e]] && (edges.strength[e] ?? 0) >= state.least
    && entityTypeOn[vertices[edges.source[e]].type] && entityTypeOn[vertices[edges.target[e]].type];
}

// Choose the edges by the filters and draw them in a new layout.
function redraw() {
  const found = [];
  let passing = 0;
  for (let e = 0; e < edgeCount; e++) {
    if (!passes(e)) continue;
    passing += 1;
    if (found.length < state.budget) found.push(e);
  }
  shown = { edges: found, vertices: endsOf(found), passing, near: null, degree: degreesOf(found) };
  scatter();
  shown.vertices.forEach(placeByLayout); // from there the forces begin
  fitNext = true;
  draw(true);
  describe();
}

function endsOf(list) {
  const ends = new Set();
  for (const e of list) ends.add(edges.source[e]).add(edges.target[e]);
  return [...ends].sort((one, other) => one - other).map((v) => vertices[v]);
}

function degreesOf(list) {
  const degrees = new Map();
  for (const e of list) for (const v of [edges.source[e], edges.target[e]]) degrees.set(v, (degrees.get(v) ?? 0) + 1);
  return degrees;
}

// Hand vertices and links to the library: those shown, and the whole neighbourhood of the chosen one.
function draw(newLayout) {
  scatter();
  const drawn = new Set(shown.edges), here = new Set(shown.vertices);
  shown.near = null;
  if (state.chosen) {
    shown.near = new Set([state.chosen.v]);
    if (!here.has(state.chosen)) { here.add(state.chosen); placeByLayout(state.chosen); }
    for (const e of edgesOf[state.chosen.v].filter(passes)) {
      const other = vertices[otherEnd(e, state.chosen.v)];
      drawn.add(e);
      shown.near.add(other.v);
      if (!here.has(other)) { here.add(other); placeByLayout(other); }
    }
  }
  const list = [...drawn];
  separateParallels(list);
  graph.linkPointerAreaPaint(list.length > MAX_POINTED_AT ? () => {} : null);
  const laidOut = newLayout && shown.edges.length <= MAX_LAID_OUT;
  const ticks = Math.round(Math.max(50, Math.min(300, 4e5 / (1 + drawn.size + here.size))));
  graph.warmupTicks(laidOut ? ticks : 0).d3AlphaDecay(1 - Math.pow(0.001, 1 / ticks))
    .graphData({ nodes: [...here], links: list.map(linkOf) });
}

// The forces spread what they lay out; without them, the places have to be far enough apart as they are.
function placeByLayout(vertex) {
  const side = shown.edges.length > MAX_LAID_OUT ? 60 : 26 * Math.sqrt(shown.vertices.length / Math.max(1, vertices.length));
  vertex.x = data.vertices.x[vertex.v] * side;
  vertex.y = data.vertices.y[vertex.v] * side;
  vertex.fx = vertex.fy = undefined;
  vertex.vx = vertex.vy = 0;
}

// Bring the neighbours of the chosen vertex around it, those with the strongest edges nearest, so that far ones are seen.
let gathered = [];
function gather() {
  const centre = state.chosen, strengths = new Map();
  for (const e of edgesOf[centre.v].filter(passes)) {
    const other = otherEnd(e, centre.v);
    if (other !== centre.v) strengths.set(other, Math.max(strengths.get(other) ?? 0, edges.strength[e] ?? 0));
  }
  const others = [...strengths].sort((one, two) => two[1] - one[1] || one[0] - two[0]).map(([v]) => vertices[v]);
  gathered = others.map((vertex) => ({ vertex, x: vertex.x, y: vertex.y }));
  for (let ring = 1; others.length; ring++) {
    const on = others.splice(0, 9 * ring);
    const angle = (vertex) => Math.atan2(vertex.y - centre.y, vertex.x - centre.x);
    on.sort((one, other) => angle(one) - angle(other));
    on.forEach((vertex, place) => {
      const turn = (2 * Math.PI * (place + (ring % 2) / 2)) / on.length - Math.PI;
      // Wider than high, as titles are.
      vertex.x = vertex.fx = centre.x + 1.5 * 62 * ring * Math.cos(turn);
      vertex.y = vertex.fy = centre.y + 62 * ring * Math.sin(turn);
    });
  }
}

function scatter() {
  for (const { vertex, x, y } of gathered) { vertex.x = vertex.fx = x; vertex.y = vertex.fy = y; }
  gathered = [];
}

// Edges between the same two vertices are bent apart.
function separateParallels(list) {
  const pairs = new Map();
  for (const e of list) {
    const key = Math.min(edges.source[e], edges.target[e]) * vertices.length + Math.max(edges.source[e], edges.target[e]);
    const pair = pairs.get(key);
    if (pair) pair.push(e); else pairs.set(key, [e]);
  }
  for (const pair of pairs.values()) {
    pair.forEach((e, turn) => {
      const bend = (turn - (pair.length - 1) / 2) * 0.22;
      linkOf(e).bend = edges.source[e] === edges.target[e] ? 0.4 + turn * 0.2
        : edges.source[e] < edges.target[e] ? bend : -bend;
    });
  }
}

function describe() {
  const missing = shown.passing - shown.edges.length;
  $("shown").textContent = `${number.format(shown.edges.length)} of ${number.format(shown.passing)} edges, `
    + `${number.format(shown.vertices.length)} entities`;
  document.body.dataset.shownEdges = shown.edges.length;
  document.body.dataset.shownEntities = shown.vertices.length;
  $("more").disabled = missing === 0;
}

// ---- the picture

const colour = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["ground", "ink", "vertex", "chosen"]) colour[name] = style.getPropertyValue("--" + name).trim();
}
readColours();
const faint = (hex, alpha) => hex + Math.round(alpha * 255).toString(16).padStart(2, "0");

let scale = 1, fitNext = true;
const isNear = (e) => !state.chosen || edges.source[e] === state.chosen.v || edges.target[e] === state.chosen.v;
const radius = (vertex) => 2.6 + (shown.edges.length > MAX_LAID_OUT ? 0.4 : 0.9) * Math.sqrt(shown.degree.get(vertex.v) ?? 1);
const directed = (e) => edgeTypes[edges.type[e]].directed;
const edgeAlpha = () => (shown.edges.length > 3000 ? 0.35 : shown.edges.length > 800 ? 0.5 : 0.7);

function edgeColour({ e }) {
  return faint(edgeTypes[edges.type[e]].colour, !isNear(e) ? 0.05 : state.chosen ? 0.9 : edgeAlpha());
}

function outline(context, shape, x, y, r) {
  context.beginPath();
  if (shape === "circle") context.arc(x, y, r, 0, 2 * Math.PI);
  else if (shape === "square") context.rect(x - 0.88 * r, y - 0.88 * r, 1.76 * r, 1.76 * r);
  else {
    const corners = { triangle: 3, diamond: 4, hexagon: 6, star: 10 }[shape];
    for (let corner = 0; corner < corners; corner++) {
      const angle = (2 * Math.PI * corner) / corners - Math.PI / 2;
      const reach = shape === "star" && corner % 2 ? 0.6 * r : 1.2 * r;
      context.lineTo(x + reach * Math.cos(angle), y + reach * Math.sin(angle));
    }
    context.closePath();
  }
}

function paintVertex(vertex, context) {
  const near = !shown.near || shown.near.has(vertex.v), r = radius(vertex);
  context.globalAlpha = near ? 1 : 0.12;
  outline(context, SHAPES[vertex.type % SHAPES.length], vertex.x, vertex.y, r);
  context.fillStyle = vertex === state.chosen ? colour.chosen : colour.vertex;
  context.fill();
  context.lineWidth = 1 / scale;
  context.strokeStyle = colour.ground;
  context.stroke();
  if (vertex === state.chosen) {
    context.beginPath();
    context.arc(vertex.x, vertex.y, r + 4 / scale, 0, 2 * Math.PI);
    context.lineWidth = 2 / scale;
    context.strokeStyle = colour.chosen;
    context.stroke();
  }
  context.globalAlpha = 1;
}

// Titles of the most connected vertices first, each where it covers no other title; so zooming in shows more of them.
function paintLabels(context) {
  const corner = graph.screen2GraphCoords(0, 0), end = graph.screen2GraphCoords(graph.width(), graph.height());
  const taken = [], most = scale > 1.5 ? 250 : 90;
  context.textAlign = "center";
  context.textBaseline = "top";
  context.lineJoin = "round";
  for (const vertex of labelOrder()) {
    if (taken.length >= most) break;
    if (vertex.x < corner.x || vertex.x > end.x || vertex.y < corner.y || vertex.y > end.y) continue;
    const important = vertex === state.chosen || vertex === state.hovered;
    const size = important ? 13 : 11.5;
    context.font = `${important ? 600 : 400} ${size / scale}px system-ui, sans-serif`;
    const width = context.measureText(vertex.label).width, height = (size * 1.25) / scale;
    const top = vertex.y + radius(vertex) + 2 / scale;
    const box = [vertex.x - width / 2 - 3 / scale, top, vertex.x + width / 2 + 3 / scale, top + height];
    if (!important && taken.some((one) => box[0] < one[2] && one[0] < box[2] && box[1] < one[3] && one[1] < box[3])) continue;
    taken.push(box);
    context.lineWidth = 3 / scale;
    context.strokeStyle = faint(colour.ground, 0.85);
    context.strokeText(vertex.label, vertex.x, top);
    context.fillStyle = colour.ink;
    context.fillText(vertex.label, vertex.x, top);
  }
}

function labelOrder() {
  const first = [state.chosen, state.hovered].filter(Boolean);
  const others = (shown.near ? [...shown.near].map((v) => vertices[v]) : shown.vertices).filter((one) => !first.includes(one));
  return [...first, ...others.sort((one, other) => (shown.degree.get(other.v) ?? 0) - (shown.degree.get(one.v) ?? 0))];
}

// The library puts a text into the page as HTML, an element as it is.
function tip(lines) {
  const box = element("div", { class: "tip" });
  lines.forEach((line, place) => box.append(element(place ? "small" : "div", {}, line)));
  return box;
}

// Keeps what is not connected together, in the proportions of the window.
function pullToCentre(alpha) {
  const pull = 0.06 * alpha, narrow = Math.max(0.3, Math.min(1.5, graph.height() / graph.width()));
  for (const vertex of pullToCentre.vertices) {
    vertex.vx -= vertex.x * pull * narrow;
    vertex.vy -= vertex.y * pull;
  }
}
pullToCentre.initialize = (list) => { pullToCentre.vertices = list; };

const graph = new ForceGraph($("graph"))
  .nodeId("v").nodeRelSize(1).nodeVal((vertex) => radius(vertex) ** 2)
  .nodeLabel((vertex) => tip([nameOf(vertex), words(entityTypes[vertex.type]) + " " + visible(vertex.id)]))
  .nodeCanvasObject(paintVertex)
  .nodePointerAreaPaint((vertex, painted, context) => {
    outline(context, "circle", vertex.x, vertex.y, radius(vertex) + 3 / scale);
    context.fillStyle = painted;
    context.fill();
  })
  .linkColor(edgeColour)
  .linkWidth(({ e }) => (state.marked === e ? 4 : (state.chosen && isNear(e) ? 0.6 : 0) + ((edges.strength[e] ?? 0) < 0.6 ? 0.8 : 1.3)))
  .linkCurvature(({ bend }) => bend ?? 0)
  .linkDirectionalArrowLength(({ e }) => (directed(e) && isNear(e) ? Math.min(7, 9 / scale) : 0))
  .linkDirectionalArrowRelPos(1)
  .linkLabel(({ e }) => tip([
    `${nameOf(vertices[edges.source[e]])} ${directed(e) ? "→" : "–"} ${nameOf(vertices[edges.target[e]])}`,
    [words(edgeTypes[edges.type[e]].name), strengthOf(e)].filter(Boolean).join(" "), evidenceOf(e),
  ].filter(Boolean)))
  .onNodeClick((vertex) => choose(vertex))
  .onLinkClick(({ e }) => choose(vertices[edges.source[e]], e))
  .onBackgroundClick(() => choose(null))
  .onNodeHover((vertex) => { state.hovered = vertex; repaint(); })
  .onNodeDragEnd((vertex) => { vertex.fx = vertex.x; vertex.fy = vertex.y; })
  .onRenderFramePre((_, now) => { scale = now; })
  .onRenderFramePost(paintLabels)
  .onEngineStop(settled)
  .cooldownTicks(0).minZoom(0.02).maxZoom(12);
graph.d3Force("center", null);
graph.d3Force("charge").strength(-55).distanceMax(500);
graph.d3Force("link").distance(34);
graph.d3Force("pull", pullToCentre);

// The places are final: the library calls this before it paints the first frame of new data.
function settled() {
  for (const vertex of graph.graphData().nodes) { vertex.fx = vertex.x; vertex.fy = vertex.y; }
  if (state.chosen) {
    gather();
    look([...shown.near].map((v) => vertices[v]), fitNext ? 0 : 400);
  } else if (fitNext) look(shown.vertices, 0);
  fitNext = false;
}

function repaint() { graph.linkColor(edgeColour); } // the library paints a frame when a property is set

const duration = (milliseconds) => (reducedMotion.matches ? 0 : milliseconds);

// Move the picture so that `list` fills it.
function look(list, milliseconds) {
  if (!list.length) return;
  // Without the few that stand far out, of very many.
  const out = list.length > 1000 ? Math.floor(list.length / 200) : 0;
  const bounds = (axis) => {
    const places = list.map((vertex) => vertex[axis]).sort((one, other) => one - other);
    return [places[out], places[places.length - 1 - out]];
  };
  const [[left, right], [top, bottom]] = [bounds("x"), bounds("y")];
  const fitting = Math.min((graph.width() - 180) / (right - left + 20), (graph.height() - 90) / (bottom - top + 20), 2.5);
  graph.centerAt((left + right) / 2, (top + bottom) / 2, duration(milliseconds)).zoom(fitting, duration(milliseconds));
}

// ---- the chosen entity

let before = null; // the view before an entity was chosen

function choose(vertex, markedEdge = null) {
  if (vertex && !state.chosen) before = { ...graph.centerAt(), zoom: graph.zoom() };
  const closed = state.chosen && !vertex;
  state.chosen = vertex;
  state.marked = markedEdge;
  const fragment = vertex ? "#entity=" + encodeURIComponent(vertex.ref) : "#";
  if ((location.hash || "#") !== fragment) history.pushState(null, "", fragment);
  showPanel();
  fitCanvas();
  draw(false);
  document.body.dataset.chosen = vertex ? vertex.v : "";
  if (closed && before && !fitNext) graph.centerAt(before.x, before.y, duration(300)).zoom(before.zoom, duration(300));
}

function chooseFromAddress() {
  const found = /^#entity=(.+)$/.exec(location.hash);
  let ref = "";
  try { ref = found ? decodeURIComponent(found[1]) : ""; } catch { /* not made by this page */ }
  const vertex = byRef.get(ref) ?? null;
  if (vertex !== state.chosen) choose(vertex);
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

const strengthOf = (e) => (edges.strength[e] === null ? "" : edges.strength[e].toFixed(2));

function evidenceOf(e) {
  const rule = texts[edges.rule[e]], said = texts[edges.words[e]], origin = texts[edges.origin[e]];
  const by = origin && origin !== "mcp_assets" ? "by " + origin : "";
  return [rule && words(rule), said, by].filter(Boolean).map(visible).join(" · ");
}

// Both scores of two entities, as far as edges of the page say them, behind an edge that is about something else.
const SCORES = { semantic_similarity: "cosine", topical_relevance: "shared tags" };
function scoresOf(e) {
  const [one, other] = [edges.source[e], edges.target[e]];
  const list = edgesOf[one].length < edgesOf[other].length ? edgesOf[one] : edgesOf[other];
  const found = new Map();
  for (const near of list) {
    const name = SCORES[edgeTypes[edges.type[near]].name];
    const sameEnds = otherEnd(near, one) === other && otherEnd(near, other) === one;
    if (name && sameEnds && edges.type[near] !== edges.type[e] && strengthOf(near)) found.set(name, strengthOf(near));
  }
  return [...found].map(([name, strength]) => `${name} ${strength}`).join(", ");
}

// ↔ stands for two rows, one in each direction.
function arrowOf(e, v) {
  if (edges.both[e]) return ["↔", "to and from"];
  return edges.source[e] === v ? ["→", "to"] : ["←", "from"];
}

function showPanel() {
  const panel = $("panel"), vertex = state.chosen;
  panel.hidden = !vertex;
  panel.replaceChildren();
  if (!vertex) return;
  const url = data.vertices.url?.[vertex.v];
  const list = element("ol");
  const own = edgesOf[vertex.v].filter(passes).sort((one, other) => (edges.strength[other] ?? 0) - (edges.strength[one] ?? 0));
  panel.append(
    element("header", {},
      element("span", { class: "soft" }, words(entityTypes[vertex.type])),
      element("button", { class: "plain close", type: "button", "aria-label": "Close", onclick: () => choose(null) }, "×")),
    element("h2", {}, element("bdi", {}, nameOf(vertex))),
    element("p", {}, element("code", {}, visible(vertex.id))),
  );
  if (url && /^https?:\/\//.test(url)) {
    panel.append(element("p", {}, element("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, "Open its page ↗")));
  }
  const hiddenByFilters = edgesOf[vertex.v].length - own.length;
  panel.append(
    element("h3", {}, `${number.format(own.length)} ${own.length === 1 ? "edge" : "edges"}`
      + (hiddenByFilters ? `, ${number.format(hiddenByFilters)} more behind the filters` : "")),
    list);
  const add = (some) => list.append(...some.map((e) => edgeItem(e, vertex)));
  const first = own.slice(0, LISTED);
  if (state.marked !== null && !first.includes(state.marked)) first.unshift(state.marked);
  add(first);
  if (own.length > LISTED) {
    const others = element("button", { class: "plain", type: "button", onclick: () => {
      add(own.slice(LISTED));
      others.remove();
    } }, `Show the other ${number.format(own.length - LISTED)}`);
    panel.append(others);
  }
  panel.scrollTop = 0;
  list.querySelector(".chosen")?.scrollIntoView({ block: "center" });
}

function edgeItem(e, vertex) {
  const other = vertices[otherEnd(e, vertex.v)], type = edgeTypes[edges.type[e]];
  const [sign, spoken] = arrowOf(e, vertex.v), evidence = [evidenceOf(e), scoresOf(e)].filter(Boolean).join(" · ");
  const item = element("li", state.marked === e ? { class: "chosen" } : {},
    element("div", { class: "edge" },
      element("span", { class: "arrow", style: "color:" + type.colour, role: "img", "aria-label": spoken, title: spoken }, sign),
      element("span", { class: "what" }, words(type.name)),
      element("span", { class: "count", title: "strength" }, strengthOf(e))),
    element("button", { class: "plain", type: "button", onclick: () => choose(other), title: visible(other.ref) },
      element("bdi", {}, nameOf(other))));
  if (evidence) item.append(element("blockquote", {}, element("bdi", {}, evidence)));
  return item;
}

// ---- search

let matches = [], active = 0;

function find(query) {
  const wanted = query.trim().toLowerCase();
  if (!wanted) return [];
  const found = [];
  for (const vertex of vertices) {
    const title = vertex.title.toLowerCase(), id = vertex.id.toLowerCase();
    const rank = id === wanted || vertex.ref.toLowerCase() === wanted ? 0 : title === wanted ? 1
      : title.startsWith(wanted) ? (/[\p{L}\p{N}]/u.test(title.charAt(wanted.length)) ? 3 : 2) // whole words first
      : id.startsWith(wanted) ? 4 : title.includes(wanted) ? 5 : vertex.ref.toLowerCase().includes(wanted) ? 6 : -1;
    if (rank >= 0) found.push([rank, -edgesOf[vertex.v].length, vertex]);
  }
  return found.sort((one, other) => one[0] - other[0] || one[1] - other[1]).slice(0, MATCHES).map((one) => one[2]);
}

function showMatches() {
  const list = $("matches"), typed = $("search").value.trim() !== "";
  list.replaceChildren(...matches.map((vertex, place) => element("li",
    { role: "option", id: "match-" + place, "aria-selected": String(place === active), onclick: () => take(vertex) },
    element("bdi", {}, nameOf(vertex)),
    element("small", {}, element("bdi", {}, words(entityTypes[vertex.type]) + " " + visible(vertex.id))))));
  if (typed && !matches.length) list.append(element("li", { role: "option", "aria-disabled": "true" }, "no entity of this page"));
  list.hidden = !typed;
  $("search").setAttribute("aria-expanded", String(typed));
  if (matches.length) $("search").setAttribute("aria-activedescendant", "match-" + active);
  else $("search").removeAttribute("aria-activedescendant");
}

function take(vertex) {
  $("search").value = "";
  matches = [];
  showMatches();
  choose(vertex);
}

$("search").addEventListener("input", (event) => { matches = find(event.target.value); active = 0; showMatches(); });
$("search").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && matches.length) take(matches[active]);
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    active = (active + (event.key === "ArrowDown" ? 1 : -1) + matches.length) % Math.max(1, matches.length);
    showMatches();
    document.getElementById("match-" + active)?.scrollIntoView({ block: "nearest" });
  } else if (event.key === "Escape" && event.target.value) {
    event.target.value = ""; matches = []; showMatches();
    event.stopPropagation();
  } else return;
  event.preventDefault();
});

// ---- filters

function options(container, names, on, mark, counts) {
  names.forEach((name, place) => {
    const box = element("input", { type: "checkbox", onchange: () => { on[place] = box.checked; filtersChanged(); } });
    box.checked = true;
    container.append(element("label", {}, box, mark(place), element("span", {}, words(name)),
      element("span", { class: "count" }, number.format(counts[place]))));
  });
}

function shapeIcon(place) {
  const shapes = {
    circle: "M7 1a6 6 0 1 0 .01 0z", square: "M1.5 1.5h11v11h-11z", triangle: "M7 1l6.5 11.5h-13z", diamond: "M7 0l7 7-7 7-7-7z",
    hexagon: "M7 0l6 3.5v7L7 14l-6-3.5v-7z", star: "M7 0l2 5h5l-4 3 1.5 5.5L7 10.5 2.5 13.5 4 8 0 5h5z",
  };
  const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  icon.setAttribute("class", "shape");
  icon.setAttribute("viewBox", "0 0 14 14");
  icon.setAttribute("aria-hidden", "true");
  path.setAttribute("d", shapes[SHAPES[place % SHAPES.length]]);
  icon.append(path);
  const holder = element("span");
  holder.append(icon);
  return holder;
}

const count = (values, kinds) => {
  const counts = kinds.map(() => 0);
  for (const value of values) counts[value] += 1;
  return counts;
};
options($("edge-types"), edgeTypes.map((type) => type.name), edgeTypeOn,
  (place) => element("span", { class: "swatch", style: "background:" + edgeTypes[place].colour }), count(edges.type, edgeTypes));
options($("entity-types"), entityTypes, entityTypeOn, shapeIcon, count(data.vertices.type, entityTypes));

function filtersChanged() {
  redraw();
  showPanel();
}

const budget = $("budget");
for (const size of [...BUDGETS.filter((size) => size < edgeCount), edgeCount]) {
  budget.append(element("option", { value: size }, (size === edgeCount ? "all " : "") + number.format(size) + (size > MAX_POINTED_AT ? ", slow" : "")));
}
budget.addEventListener("change", () => { state.budget = Number(budget.value); filtersChanged(); });
$("more").addEventListener("click", () => {
  budget.selectedIndex = Math.min(budget.selectedIndex + 1, budget.options.length - 1);
  budget.dispatchEvent(new Event("change"));
});
$("strength").addEventListener("input", (event) => { $("least").value = Number(event.target.value).toFixed(2); });
$("strength").addEventListener("change", (event) => { state.least = Number(event.target.value); filtersChanged(); });

// ---- keys, size, colours

addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "Escape") choose(null);
  else if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key === "/") $("search").focus();
  else if (event.key === "+" || event.key === "=") graph.zoom(scale * 1.4, 150);
  else if (event.key === "-") graph.zoom(scale / 1.4, 150);
  else if (event.key === "0") look(shown.vertices, 300);
  else if (event.target === $("graph") && event.key.startsWith("Arrow")) {
    const step = 80 / scale, { x, y } = graph.centerAt();
    const [right, down] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    graph.centerAt(x + right * step, y + down * step, 100);
  } else return;
  event.preventDefault();
});

function fitCanvas() { graph.width($("graph").clientWidth).height($("graph").clientHeight); }
new ResizeObserver(fitCanvas).observe($("graph"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); repaint(); });
addEventListener("popstate", chooseFromAddress);
addEventListener("hashchange", chooseFromAddress);

$("total").textContent = edgeCount
  ? `${number.format(vertices.length)} entities, ${number.format(data.rows)} edges`
    + (data.rows > edgeCount ? `; what is similar both ways is one line, so there are ${number.format(edgeCount)} to draw` : "")
  : "There are no edges.";
fitCanvas();
redraw();
chooseFromAddress();
