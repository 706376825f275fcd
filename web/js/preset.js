// "Turn into nodes" in the menu of Guidance for this model (nodes/model_preset.py): what its last run set, as nodes of their own.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { find } from "./places.js"

const GAP = 40 // pixels between nodes
const told = new WeakMap() // node -> what its last run set, and for which choices

const choices = node => JSON.stringify(node.widgets.filter(({ serialize }) => serialize !== false).map(({ value }) => value))

function learn({ detail: { node: id, output } }) {
  const node = output?.guidance_chain && find(id)
  if (node) told.set(node, { chain: output.guidance_chain, of: choices(node) })
}

// What would be made; nothing where no run has said it for these choices.
function chainOf(node) {
  const { chain, of } = told.get(node) ?? {}
  return of === choices(node) ? chain : []
}

function turn(preset) {
  const { graph } = preset
  graph.beforeChange?.()
  const slot = name => preset.inputs.findIndex(input => input.name === name)
  const source = name => [preset.getInputNode(slot(name)), preset.getInputLink(slot(name))?.origin_slot]
  let [x, y] = [preset.pos[0], preset.pos[1] + preset.size[1] + 2 * GAP]
  let last = source("model")
  for (const [type, values] of chainOf(preset)) {
    const node = LiteGraph.createNode(type)
    node.pos = [x, y]
    graph.add(node)
    for (const widget of node.widgets) if (widget.name in values) set(node, widget, values[widget.name])
    join(last, node, "model")
    if (node.inputs.some(input => input.name === "negative")) join(source("negative"), node, "negative")
    last = [node, 0]
    x += node.size[0] + GAP
  }
  for (const id of [...(preset.outputs[0].links ?? [])]) {
    const link = graph.getLink?.(id) ?? graph.links[id]
    last[0].connect(0, graph.getNodeById(link.target_id), link.target_slot)
  }
  graph.afterChange?.()
  app.canvas.setDirty(true, true)
}

function set(node, widget, value) {
  widget.value = value
  widget.callback?.(value, app.canvas, node)
}

function join([from, output], node, name) {
  from?.connect(output, node, node.inputs.findIndex(input => input.name === name))
}

app.registerExtension({
  name: "guidance.preset",
  setup: () => api.addEventListener("executed", learn),
  getNodeMenuItems: node =>
    node.comfyClass === "GuidanceModelPreset" && chainOf(node).length
      ? [{ content: "Turn into nodes", callback: () => turn(node) }]
      : [],
})
