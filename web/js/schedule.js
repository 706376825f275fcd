// The editor on the GuidanceSchedule node: a companion of its text, which is the value. The editor itself saves nothing.
// Where the text is promoted to a subgraph's node, which shows no widgets but the page's own, it comes in a panel.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { ScheduleEditor } from "./editor.js"
import { Panel } from "./panel.js"
import { find, place, rootGraph } from "./places.js"
import { grown, told } from "./runs.js"

const KIND = "GuidanceSchedule"
const TEXT = "schedule" // its input
const RANGE = "guidance y-range" // the node property that keeps a range set by hand
const SIZE = [400, 410] // of a new node
const HEIGHT = 260 // that the editor needs
const PREVIEW = [340, 460]
const DRAW = "guidance.draw-schedule"
const FOLLOW = 200, PATIENCE = 5 // ms between looks at what else has changed a panel's text; looks until it is gone
let made = 0

const editors = new WeakMap() // node -> its editor
const runs = new Map() // place of a node -> what its last run told, for the editor that comes after an undo
const panels = new Map() // place of a promoted text -> its panel

// What an editor asks for. node(): the node that it is for, which after an undo is another one.
const hostOf = (node, key, write) => ({
  write,
  begin: () => app.canvas.emitBeforeChange(),
  end: () => app.canvas.emitAfterChange(),
  get range() {
    return node()?.properties[key] ?? null
  },
  set range(range) {
    if (range) node().properties[key] = range
    else delete node().properties[key]
  },
})

function attach(node) {
  const source = node.widgets.find(widget => widget.name === TEXT)
  const editor = new ScheduleEditor(hostOf(() => node, RANGE, text => {
    source.value = text
    source.callback?.(text, app.canvas, node)
    if (!LiteGraph.vueNodesMode) app.canvas.setDirty(true) // where the text is painted
  }))
  editors.set(node, editor)

  // A type of its own for each, or Nodes 2.0 goes on showing the element from before an undo.
  const widget = node.addDOMWidget("schedule_editor", `GUIDANCE_SCHEDULE_EDITOR_${++made}`, editor.root, {
    serialize: false, hideInPanel: true, socketless: true, hideOnZoom: false, getMinHeight: () => HEIGHT,
  })
  widget.serialize = false

  const refresh = () => {
    editor.wake()
    editor.set(String(source.value))
    editor.setLinked(decider(node))
    editor.setRun(runs.get(place(node)) ?? {})
  }
  after(source, "callback", () => editor.set(String(source.value)))
  after(node, "onConfigure", refresh)
  after(node, "onAdded", refresh)
  after(node, "onConnectionsChange", refresh)
  after(node, "onRemoved", () => editor.rest())
  forwardToCanvas(editor.root)
  refresh()
  grow(node, SIZE)
}

function after(object, name, then) {
  const before = object[name]
  object[name] = function (...given) {
    const result = before?.apply(this, given)
    then()
    return result
  }
}

// The size of a new node; a saved one gets its own back.
function grow(node, [width, height]) {
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], node.computeSize()[1], height)])
}

// What sets the value in place of the node's own text, or null.
function decider(node) {
  const id = node.inputs?.find(input => input.widget?.name === TEXT)?.link
  if (id == null) return null
  const fromSubgraph = node.graph?.getLink?.(id)?.origin_id < 0
  return fromSubgraph ? "Set on the subgraph's node, outside. To draw it, select that node and press the curve button above it."
    : "Set by the link at the input."
}

// Zoom and pan as everywhere else; in Nodes 2.0 the page does it by itself.
export function forwardToCanvas(root) {
  const forward = (name, method, wanted) => root.addEventListener(name, event => {
    if (LiteGraph.vueNodesMode || !wanted(event)) return
    event.preventDefault()
    app.canvas[method](event)
  }, { passive: false })
  forward("wheel", "processMouseWheel", () => true)
  forward("pointerdown", "processMouseDown", event => event.button === 1)
  forward("pointermove", "processMouseMove", event => event.buttons & 4)
  forward("pointerup", "processMouseUp", event => event.button === 1)
}

// ---- promoted to a subgraph's node

// The GuidanceSchedule whose text a subgraph's node has at this input, perhaps through further subgraphs.
function behind({ subgraph }, slot) {
  for (const id of subgraph?.inputs?.[slot]?.linkIds ?? []) {
    const link = subgraph.getLink(id)
    const inner = link && subgraph.getNodeById(link.target_id)
    const found = inner?.subgraph ? behind(inner, link.target_slot)
      : inner?.comfyClass === KIND && inner.inputs[link.target_slot]?.widget?.name === TEXT ? inner : null
    if (found) return found
  }
  return null
}

// The inputs of a subgraph's node that are schedules and decided here: [{name, label, inner, widget}].
function promoted(node) {
  if (!node?.subgraph) return []
  return node.inputs.flatMap((input, slot) => {
    const inner = input.link == null && behind(node, slot)
    const widget = inner && node.getWidgetFromSlot?.(input)
    return widget ? [{ name: input.name, label: input.label ?? input.name, inner, widget }] : []
  })
}

function open(node, name, label, nth) {
  const { id } = node
  const graph = node.graph === rootGraph() ? null : node.graph.id
  const key = `${place(node)}/${name}`
  if (panels.has(key)) return
  const now = () => (graph ? rootGraph().subgraphs?.get(graph) : rootGraph())?.getNodeById(id)
  const text = () => promoted(now()).find(found => found.name === name)
  const editor = new ScheduleEditor(hostOf(now, `${RANGE} ${name}`, value => {
    const widget = text()?.widget
    if (!widget) return
    widget.value = value
    widget.callback?.(value, app.canvas, now())
    app.canvas.setDirty(true, true)
  }))
  let shown, missing = 0
  const follow = () => {
    const found = text()
    missing = found ? 0 : missing + 1 // for a moment while an undo restores the workflow
    if (missing > PATIENCE) panels.get(key).close()
    if (!found) return
    editor.set(String(found.widget.value))
    const run = runs.get(place(found.inner))
    if (run && run !== shown) editor.setRun({ ...(shown = run), text: editor.saved.text })
  }
  editor.wake()
  const timer = setInterval(follow, FOLLOW)
  panels.set(key, new Panel(`${node.title}: ${label}`, editor.root, beside(node, nth), () => {
    clearInterval(timer)
    editor.rest()
    panels.delete(key)
  }))
  follow()
}

// A place on the page to the right of a node.
function beside(node, nth) {
  const { canvas, ds } = app.canvas
  const { left, top } = canvas.getBoundingClientRect()
  return [left + (node.pos[0] + node.size[0] + ds.offset[0]) * ds.scale + 12 + 24 * nth, top + (node.pos[1] + ds.offset[1]) * ds.scale - 30 + 24 * nth]
}

function draw(nodes) {
  for (const node of nodes) promoted(node).forEach(({ name, label }, i) => open(node, name, label, i))
}

// ---- runs

function hear({ detail }) {
  for (const [id, news] of told(detail)) {
    const node = find(id)
    const editor = node && editors.get(node)
    if (!editor) continue
    const run = grown(runs.get(place(node)), news, editor.saved.text)
    runs.set(place(node), run)
    editor.setRun(run)
  }
}

app.registerExtension({
  name: "guidance.schedule",
  commands: [{ id: DRAW, label: "Draw the schedule", icon: "pi pi-chart-line", function: () => draw(Object.values(app.canvas.selected_nodes)) }],
  getSelectionToolboxCommands: item => (promoted(item).length ? [DRAW] : []),
  getNodeMenuItems: node => (promoted(node).length ? [{ content: "Draw the schedule", callback: () => draw([node]) }] : []),
  setup() {
    for (const event of ["guidance.marker", "guidance.applied"]) api.addEventListener(event, hear)
  },
  nodeCreated(node) {
    if (node.comfyClass === KIND) attach(node)
    if (node.comfyClass === "GuidanceSchedulePreview") grow(node, PREVIEW)
  },
})
