// Knobs of modes that are not chosen are hidden, and choices that another one rules out are not offered. Which ones,
// nodes/inputs.py says beside each input. Only the page obeys: values, saved workflows and the API stay as they are.

import { app } from "../../../scripts/app.js"

const NODE = /^Guidance/

function attach(node, inputs) {
  for (const widget of node.widgets ?? []) {
    const { used_when: usedWhen, choices_by: choicesBy } = inputs[widget.name]?.[1]?.guidance ?? {}
    if (usedWhen) {
      const unused = () => isUnused(current(node), widget.name, usedWhen)
      for (const hidden of [widget, ...(widget.linkedWidgets ?? [])]) {
        compute(hidden, "hidden", own => own || unused()) // for the classic renderer
        compute(hidden.options, "hidden", own => own || unused()) // for Nodes 2.0
        // The classic renderer takes links at the dots of hidden widgets too: keep these off the others' dots.
        compute(hidden, "y", own => (unused() ? find(node, Object.keys(usedWhen)[0]).y : own))
      }
      for (const mode of Object.keys(usedWhen)) after(find(node, mode), "callback", () => fit(node))
    }
    if (choicesBy) {
      const [[by, choices]] = Object.entries(choicesBy)
      const offered = () => !isLinked(current(node), by) && choices[find(node, by).value]
      compute(widget.options, "values", own => offered() || own)
      after(find(node, by), "callback", () => {
        if (offered() && !offered().includes(widget.value)) widget.value = offered()[0]
      })
    }
  }
}

function isUnused(node, name, usedWhen) {
  if (isLinked(node, name)) return false
  return Object.entries(usedWhen).some(([mode, choices]) => !isLinked(node, mode) && !choices.includes(find(node, mode).value))
}

const find = (node, name) => node.widgets.find(widget => widget.name === name)
const isLinked = (node, name) => node.inputs?.find(input => input.widget?.name === name)?.link != null

// Nodes 2.0 goes on asking the options of the node that was there before an undo.
const current = node => node.graph?.getNodeById(node.id) ?? node

function compute(object, name, value) {
  let own = object[name]
  Object.defineProperty(object, name, {
    get: () => value(own), set: given => { own = given }, enumerable: true, configurable: true,
  })
}

function after(object, name, then) {
  const before = object[name]
  object[name] = function (...given) {
    const result = before?.apply(this, given)
    then()
    return result
  }
}

function fit(node) {
  node.setSize([node.size[0], node.computeSize()[1]])
  app.canvas.setDirty(true, true)
}

app.registerExtension({
  name: "guidance.used",
  nodeCreated(node) {
    if (!NODE.test(node.comfyClass)) return
    const { required, optional } = node.constructor.nodeData.input
    attach(node, { ...required, ...optional })
    fit(node)
  },
})
