import assert from "node:assert/strict"
import { test } from "node:test"
import { grown, told } from "../../web/js/runs.js"

const rows = [{ sigma: 14.6, percent: 0, step: 0, value: 7.5 }, { sigma: 3, percent: 0.5, step: 1, value: 6 }]
const named = { timeline: [{ sigma: 14.6, percent: 0 }, { sigma: 3, percent: 0.5 }, { sigma: 0, percent: 1 }], nodes: { 5: rows } }

test("the end of a run is read by name", () => {
  assert.deepEqual(told(named), [["5", { timeline: [[14.6, 0], [3, 0.5], [0, 1]], applied: rows, marker: null }]])
})

test("a run's rows are its markers until it ends, and its text is the one it began with", () => {
  const [[, first]] = told({ nodes: { 5: 7.5 }, sigma: 14.6, percent: 0, step: 0 })
  const [[, second]] = told({ nodes: { 5: 6 }, sigma: 3, percent: 0.5, step: 1 })
  let run = grown({ timeline: [], applied: rows, marker: null, text: "old" }, first, "new")
  assert.deepEqual([run.applied, run.text], [[rows[0]], "new"])
  run = grown(run, second, "edited")
  assert.deepEqual([run.applied, run.marker, run.text], [rows, rows[1], "new"])
  const [[, end]] = told(named)
  run = grown(run, end, "edited")
  assert.deepEqual([run.applied, run.marker, run.text], [rows, null, "new"])
})
