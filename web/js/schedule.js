// The editor on the GuidanceSchedule node: a companion of its text, which is the value. The editor itself saves nothing.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { ScheduleEditor } from "./editor.js"

const RANGE = "guidance y-range" // the node property that keeps a range set by hand
const HEIGHT = 260
let made = 0

const editors = new WeakMap() // node -> its editor
const runs = new Map() // place of a node -> what its last run told, for the editor that comes after an undo

function attach(node) {
  const source = node.widgets.find(widget => widget.name === "schedule")
  const editor = new ScheduleEditor({
    write(text) {
      source.value = text
      source.callback?.(text, app.canvas, node)
      if (!LiteGraph.vueNodesMode) app.canvas.setDirty(true) // where the text is painted
    },
    begin: () => app.canvas.emitBeforeChange(),
    end: () => app.canvas.emitAfterChange(),
    get range() {
      return node.properties[RANGE] ?? null
    },
    set range(range) {
      if (range) node.properties[RANGE] = range
      else delete node.properties[RANGE]
    },
  })
  editors.set(node, editor)

  // A type of its own for each, or Nodes 2.0 goes on showing the element from before an undo.
  const widget = node.addDOMWidget("schedule_editor", `GUIDANCE_SCHEDULE_EDITOR_${++made}`, editor.root, {
    serialize: false, hideInPanel: true, socketless: true, hideOnZoom: false, getMinHeight: () => HEIGHT,
  })
  widget.serialize = false

  const refresh = () => {
    editor.wake()
    editor.set(String(source.value))
    editor.setLinked(node.inputs?.find(input => input.widget?.name === "schedule")?.link != null)
    editor.setRun(runs.get(place(node)) ?? {})
  }
  after(source, "callback", () => editor.set(String(source.value)))
  after(node, "onConfigure", refresh)
  after(node, "onAdded", refresh)
  after(node, "onConnectionsChange", refresh)
  after(node, "onRemoved", () => editor.rest())
  forwardToCanvas(editor.root)
  refresh()
  node.setSize([Math.max(node.size[0], 380), Math.max(node.size[1], node.computeSize()[1])])
}

function after(object, name, then) {
  const before = object[name]
  object[name] = function (...given) {
    const result = before?.apply(this, given)
    then()
    return result
  }
}

// Zoom and pan as everywhere else; in Nodes 2.0 the page does it by itself.
function forwardToCanvas(root) {
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

// The whole workflow gets another id when it is restored, and a subgraph does not.
function place(node) {
  const inSubgraph = node.graph && node.graph !== (app.rootGraph ?? app.graph)
  return `${inSubgraph ? node.graph.id : app.extensionManager.workflow?.activeWorkflow?.path}/${node.id}`
}

// The node that ran under this id, "5" or, in a subgraph, "2:5".
function find(id) {
  const [last, ...parents] = String(id).split(":").reverse()
  let graph = app.rootGraph ?? app.graph
  for (const parent of parents.reverse()) graph = graph?.getNodeById(parent)?.subgraph
  return graph?.getNodeById(last)
}

function tell(id, run) {
  const node = find(id)
  const editor = node && editors.get(node)
  if (!editor) return
  runs.set(place(node), { ...runs.get(place(node)), ...run })
  editor.setRun(run)
}

app.registerExtension({
  name: "guidance.schedule",
  setup() {
    api.addEventListener("guidance.marker", ({ detail: { nodes, sigma, percent, step } }) => {
      for (const [id, value] of Object.entries(nodes)) tell(id, { marker: [sigma, percent, step, value] })
    })
    api.addEventListener("guidance.applied", ({ detail: { nodes, timeline } }) => {
      for (const [id, applied] of Object.entries(nodes)) tell(id, { timeline, applied, marker: null })
    })
  },
  nodeCreated(node) {
    if (node.comfyClass === "GuidanceSchedule") attach(node)
  },
})
