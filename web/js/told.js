// What a run tells of each node of the pack (nodes/bridge/report.py), and a plan of a run, in words at a node's bottom. The page's own words there
// are taken away after a run by pages since 1.58, and the classic renderer has room for two lines of them.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { find } from "./places.js"
import { PALETTE, element, style } from "./plot.js"

const STYLE = `
.guidance-told { ${PALETTE} box-sizing: border-box; width: 100%; padding: 2px 6px; font: 12px/16px system-ui, sans-serif; color: var(--ink);
  white-space: pre-line; overflow-wrap: anywhere; user-select: text; }
.guidance-told.old { opacity: .5; }
.guidance-told.measured { position: fixed; visibility: hidden; }
`
const AROUND = 20 // pixels that the classic renderer takes from a widget, each way
const boxes = new Map() // node -> its words
let made = 0

function tell({ detail: { node: id, text } }) {
  const node = find(id)
  if (!node) return
  const box = boxes.get(node) ?? attach(node)
  box.textContent = text
  box.classList.remove("old")
  const [, height] = node.computeSize()
  if (!LiteGraph.vueNodesMode && height > node.size[1]) node.setSize([node.size[0], height])
  node.setDirtyCanvas(true, true)
}

function attach(node) {
  style("guidance-told-style", STYLE)
  const box = element("div", { class: "guidance-told", role: "status" })
  const height = () => heightOf(box.textContent, node.size[0] - AROUND) + (LiteGraph.vueNodesMode ? 0 : AROUND)
  const widget = node.addDOMWidget("guidance_told", `GUIDANCE_TOLD_${++made}`, box, {
    serialize: false, hideInPanel: true, socketless: true, hideOnZoom: false, getMinHeight: height, getMaxHeight: height,
  })
  widget.serialize = false
  boxes.set(node, box)
  const { onRemoved } = node
  node.onRemoved = function (...given) {
    boxes.delete(node)
    return onRemoved?.apply(this, given)
  }
  return box
}

const heights = {} // the last one of each width: a frame of the classic renderer asks several times
function heightOf(text, width) {
  if (heights[width]?.text !== text) {
    const measured = element("div", { class: "guidance-told measured", style: `width: ${width}px` }, text)
    document.body.append(measured)
    heights[width] = { text, height: measured.offsetHeight }
    measured.remove()
  }
  return heights[width].height
}

// A plan (nodes/plan.py) and a model's settings (nodes/model_preset.py) are what their nodes put out, so that the history and the
// host's cache have them too.
const SHOWN = ["GuidancePlan", "GuidanceModelPreset"]
function show({ detail: { node, output } }) {
  const text = output?.text?.[0]
  if (text && SHOWN.includes(find(node)?.comfyClass)) tell({ detail: { node, text } })
}

// Of another run than the one that begins, until this one tells something too.
function fade() {
  for (const box of boxes.values()) box.classList.add("old")
}

app.registerExtension({
  name: "guidance.told",
  setup() {
    api.addEventListener("guidance.told", tell)
    api.addEventListener("executed", show)
    api.addEventListener("execution_start", fade)
  },
})
