// Knobs of modes that are not chosen are hidden, and choices that another one rules out are not offered. Which ones,
// nodes/inputs.py says beside each input. Only the page obeys: values, saved workflows and the API stay as they are.

import { app } from "../../../scripts/app.js"

function attach(node, inputs) {
  const knobs = []
  for (const widget of node.widgets ?? []) {
    const { used_when: usedWhen, choices_by: choicesBy } = inputs[widget.name]?.[1]?.guidance ?? {}
    if (usedWhen) knobs.push(...[widget, ...(widget.linkedWidgets ?? [])].map(each => hideable(node, each, widget.name, usedWhen)))
    if (choicesBy) limit(node, widget, ...Object.entries(choicesBy)[0])
  }
  if (!knobs.length) return
  const refresh = () => {
    knobs.forEach(knob => knob())
    node.setDirtyCanvas(true, true)
  }
  const fit = () => node.setSize([node.size[0], node.computeSize()[1]])
  for (const widget of node.widgets) after(widget, "callback", () => {
    const before = node.computeSize()[1]
    refresh()
    if (node.computeSize()[1] !== before) fit()
  })
  after(node, "onConfigure", refresh)
  after(node, "onConnectionsChange", refresh)
  refresh()
  fit()
}

// A function that hides the widget or shows it, as the mode wants.
function hideable(node, widget, name, usedWhen) {
  const unused = () => isUnused(current(node), name, usedWhen)
  // Nodes 2.0 up to 1.47 does not hear of what is written, but sees what a getter has read.
  compute(widget.options, "hidden", unused)
  // The classic renderer takes links at the dots of hidden widgets too: keep these off the others' dots.
  compute(widget, "y", own => (unused() ? find(node, Object.keys(usedWhen)[0]).y : own))
  return () => {
    widget.hidden = unused()
  }
}

function limit(node, widget, by, choices) {
  const offered = own => (!isLinked(current(node), by) && choices[find(node, by).value]) || own
  compute(widget.options, "values", offered)
  after(find(node, by), "callback", () => {
    const values = widget.options.values
    if (!values.includes(widget.value)) widget.value = values[0]
  })
}

function isUnused(node, name, usedWhen) {
  if (isLinked(node, name)) return false
  return Object.entries(usedWhen).some(([mode, choices]) => !isLinked(node, mode) && !choices.includes(find(node, mode).value))
}

const find = (node, name) => node.widgets.find(widget => widget.name === name)
const isLinked = (node, name) => {
  const slot = node.inputs.findIndex(input => input.widget?.name === name)
  return slot >= 0 && node.isInputConnected(slot)
}

// Nodes 2.0 goes on asking the options of the node that was there before an undo.
const current = node => node.graph?.getNodeById(node.id) ?? node

function compute(object, name, value) {
  let own = object[name]
  Object.defineProperty(object, name, {
    get: () => value(own), set: given => { own = given }, enumerable: true, configurable: true,
  })
}

export function after(object, name, then) {
  const before = object[name]
  object[name] = function (...given) {
    const result = before?.apply(this, given)
    then()
    return result
  }
}

app.registerExtension({
  name: "guidance.used",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("Guidance")) return
    const { required, optional } = node.constructor.nodeData.input
    attach(node, { ...required, ...optional })
  },
})
