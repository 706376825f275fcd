// What a probe sees of a run (nodes/bridge/record.py), drawn on its node while the run goes on.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { axisView, rangeOf } from "./curve.js"
import { find, place } from "./places.js"
import { PALETTE, Plot, element, style } from "./plot.js"
import { forwardToCanvas } from "./schedule.js"
import { after } from "./used.js"

const SIZES = { GuidanceProbe: [340, 520], GuidanceProbePlot: [360, 760] } // of new nodes
const HEIGHT = 370 // that the curves need
const HUES = [210, 25, 130, 290, 48, 185, 330, 0]
const DRAWN = { // by title, from a row to numbers by label
  "direction of guidance": row => ({ "length (cond's = 1)": row.direction, "cosine to cond": row.cosine_to_cond, "cosine to the last one": row.cosine_to_last }),
  "added, as a share of the answer": row => row.added,
}
const STYLE = `
.guidance-probe { ${PALETTE} display: flex; flex-direction: column; width: 100%; height: 100%; font: 11px/14px system-ui, sans-serif; }
.guidance-probe svg { flex: 1 0 150px; min-height: 150px; width: 100%; }
.guidance-probe div { display: flex; flex-wrap: wrap; gap: 0 10px; padding: 2px 8px 4px; min-height: 14px; }
.guidance-probe .guidance-plot .curve { stroke: var(--line); }
.guidance-probe .guidance-plot .applied { stroke: none; fill: var(--line); opacity: 1; }
.guidance-probe span { color: var(--line); }
`
const boxes = new WeakMap() // node -> what draws on it
const runs = new Map() // place of a node -> its last run: {steps, rows}
let made = 0

function attach(node) {
  style("guidance-probe-style", STYLE)
  const pictures = Object.entries(DRAWN).map(([title, read]) => ({ title, read, plot: new Plot(title), legend: element("div") }))
  const root = element("div", { class: "guidance-probe" }, ...pictures.flatMap(({ plot, legend }) => [plot.element, legend]))
  const draw = () => pictures.forEach(picture => drawn(picture, runs.get(place(node)) ?? { steps: 20, rows: [] }))
  boxes.set(node, draw)
  const resized = new ResizeObserver(draw)
  resized.observe(root)
  const widget = node.addDOMWidget("guidance_probe", `GUIDANCE_PROBE_${++made}`, root, {
    serialize: false, hideInPanel: true, socketless: true, hideOnZoom: false, getMinHeight: () => HEIGHT,
  })
  widget.serialize = false
  forwardToCanvas(root)
  for (const event of ["onAdded", "onConfigure"]) after(node, event, draw) // its place is known from then on
  after(node, "onRemoved", () => resized.disconnect())
}

function drawn({ title, read, plot, legend }, { steps, rows }) {
  if (!plot.visible) return
  const lines = linesOf(rows, read)
  const points = [[0, 0], ...Object.values(lines).flat(2)]
  plot.axes({ view: axisView({ points: [[Math.max(steps - 1, 1), 0]], axis: "steps", list: true }), range: rangeOf({ points }), x: "step of the run", y: title })
  const labels = Object.keys(lines)
  const color = label => `--line: color-mix(in srgb, hsl(${HUES[labels.indexOf(label) % HUES.length]} 85% 50%) 70%, var(--ink))`
  for (const name of Object.keys(plot.paths)) if (!labels.includes(name.replace(/^· /, ""))) plot.path(name, "")
  for (const label of labels) {
    plot.path(label, lines[label].map(part => plot.through(part)).join(""), { class: "curve", style: color(label) })
    plot.circles(`· ${label}`, lines[label].flat(), 2, { class: "applied", style: color(label) })
  }
  legend.replaceChildren(...labels.map(label => element("span", { style: color(label) }, label)))
}

// By label, parts of [step, number] points, with a gap where there is no number. Lines that are 0 throughout say nothing.
function linesOf(rows, read) {
  const lines = {}
  for (const row of rows) {
    for (const [label, value] of Object.entries(read(row))) {
      const parts = (lines[label] ??= [[]])
      if (value === null) parts.push([])
      else parts[parts.length - 1].push([row.step, value])
    }
  }
  return Object.fromEntries(Object.entries(lines).filter(([, parts]) => parts.flat().some(([, value]) => value !== 0)))
}

function hear({ detail: { steps, nodes } }) {
  for (const [id, { first, rows }] of Object.entries(nodes)) {
    const node = find(id)
    if (!node) continue
    const before = first ? runs.get(place(node))?.rows.slice(0, first) ?? [] : []
    runs.set(place(node), { steps, rows: [...before, ...rows] })
    boxes.get(node)?.()
  }
}

app.registerExtension({
  name: "guidance.probe",
  setup() {
    api.addEventListener("guidance.probe", hear)
  },
  nodeCreated(node) {
    if (node.comfyClass === "GuidanceProbe") attach(node)
    const [width, height] = SIZES[node.comfyClass] ?? [0, 0]
    if (width) node.setSize([Math.max(node.size[0], width), Math.max(node.computeSize()[1], height)])
  },
})
