// Nodes by what others call them: a run by their ids, and what outlives an undo by their places.

import { app } from "../../../scripts/app.js"

export const rootGraph = () => app.rootGraph ?? app.graph

// The whole workflow gets another id when it is restored, and a subgraph does not.
export function place(node) {
  const inSubgraph = node.graph && node.graph !== rootGraph()
  return `${inSubgraph ? node.graph.id : app.extensionManager.workflow?.activeWorkflow?.path}/${node.id}`
}

// The node that ran under this id, "5" or, in a subgraph, "2:5".
export function find(id) {
  const [last, ...parents] = String(id).split(":").reverse()
  let graph = rootGraph()
  for (const parent of parents.reverse()) graph = graph?.getNodeById(parent)?.subgraph
  return graph?.getNodeById(last)
}
