import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { test } from "node:test"
import * as c from "../../web/js/curve.js"

const vectors = JSON.parse(readFileSync(new URL("../schedules.json", import.meta.url)))
const close = (a, b, tolerance = 1e-12) => assert.ok(Math.abs(a - b) <= tolerance * Math.max(1, Math.abs(b)), `${a} is not ${b}`)

test("texts mean what the shared vectors say", () => {
  for (const { text, canonical, values } of vectors.valid) {
    const schedule = c.parse(text)
    assert.equal(c.format(schedule), canonical)
    const f = c.curve(schedule)
    for (const [x, y] of values) close(f(x), y)
  }
})

test("texts that mean nothing are refused where the shared vectors say", () => {
  for (const { text, character } of vectors.invalid) {
    assert.throws(() => c.parse(text), error => {
      assert.ok(error instanceof c.ScheduleError, `${text}: ${error}`)
      const told = / (ends) where | is character (\d+), where /.exec(error.message)
      assert.equal(told && (told[1] ? "end" : Number(told[2])), character, text)
      return true
    })
  }
})

test("preset shapes are those of guidance/presets.py", () => {
  for (const { name, values } of vectors.shapes) for (const [t, y] of values) close(c.SHAPES[name](t), y, 1e-9)
})

test("every preset is a schedule, and those of mean 1 keep the scale", () => {
  for (const name of c.PRESETS) {
    const made = c.preset(name, 7.5, 1)
    assert.deepEqual(c.parse(c.format(made)), made)
    if (["linear up", "linear down", "cosine up", "cosine down", "low-high-low"].includes(name)) {
      close(c.level(made).scale, 7.5, 0.01)
    }
  }
})

// A small repeatable generator, so that a failure can be looked at again.
function randomness(seed) {
  return () => (seed = (seed * 1103515245 + 12345) % 2147483648) / 2147483648
}

test("random schedules survive their own text, bit for bit", () => {
  const random = randomness(1)
  for (let n = 0; n < 5000; n++) {
    const axis = c.AXES[Math.floor(random() * 3)]
    const points = new Map(Array.from({ length: 1 + Math.floor(random() * 12) }, () =>
      [c.round(random() * (axis === "percent" ? 1 : 1000), 1e-6), (random() - 0.5) * 10 ** Math.floor(random() * 6)]))
    const made = c.schedule([...points], c.INTERPOLATIONS[Math.floor(random() * 3)], axis)
    assert.deepEqual(c.parse(c.format(made)), made)
  }
})

test("smooth curves never leave the values of the points around them", () => {
  const random = randomness(2)
  for (let n = 0; n < 500; n++) {
    const made = c.schedule(Array.from({ length: 6 }, (_, i) => [i / 5, random() * 10]), "smooth")
    const f = c.curve(made)
    for (let x = 0; x <= 1; x += 0.01) {
      const i = Math.min(Math.floor(x * 5), 4)
      const [low, high] = [made.points[i][1], made.points[i + 1][1]].sort((a, b) => a - b)
      assert.ok(f(x) >= low - 1e-9 && f(x) <= high + 1e-9)
    }
  }
})

test("a point stays between its neighbours", () => {
  const made = c.parse("0:1, 0.5:2, 1:3")
  assert.equal(c.format(c.movePoint(made, 1, 0.7, 5)), "0:1, 0.7:5, 1:3")
  assert.equal(c.format(c.movePoint(made, 1, 2, 5)), "0:1, 0.999:5, 1:3")
  assert.equal(c.format(c.movePoint(made, 0, -1, 5)), "0:5, 0.5:2, 1:3")
  assert.equal(c.format(made), "0:1, 0.5:2, 1:3")
})

test("points are added, replaced and removed, down to a constant", () => {
  const [added, index] = c.addPoint(c.parse("0:1, 1:3"), 0.25, 9)
  assert.equal(c.format(added), "0:1, 0.25:9, 1:3")
  assert.equal(index, 1)
  assert.equal(c.format(c.addPoint(added, 0.25, 4)[0]), "0:1, 0.25:4, 1:3")
  assert.equal(c.format(c.removePoint(added, 1)), "0:1, 1:3")
  assert.equal(c.format(c.removePoint(c.removePoint(c.removePoint(added, 1), 0), 0)), "3")
})

test("a list has a number for each step, and an edit leaves it one", () => {
  const list = c.parse("12, 10; 8\n7.5,")
  assert.deepEqual(list, c.perStep([12, 10, 8, 7.5]))
  assert.equal(c.format(c.movePoint(list, 1, 3, 11)), "12, 11, 8, 7.5")
  assert.deepEqual(c.addPoint(list, 2.4, 9), [c.perStep([12, 10, 9, 7.5]), 2])
  assert.equal(c.format(c.removePoint(list, 0)), "10, 8, 7.5")
  assert.equal(c.format(c.removePoint(c.parse("3, 4"), 0)), "4")
  assert.equal(c.format(c.withInterpolation(list, "step")), "12, 10, 8, 7.5 step")
  assert.equal(c.format(c.withInterpolation(c.parse("0:1, 9:2 steps"), "smooth")), "0:1, 9:2 smooth steps")
})

test("a list fills the run, whatever its number of steps", () => {
  const run = [[14.6, 0], [8, 0.2], [5, 0.4], [1, 0.6], [0.3, 0.8], [0, 1]] // 5 steps
  const list = c.parse("8, 7, 6")
  assert.deepEqual([0, 1, 2].map(c.axisView(list, run).unit), [0, 0.5, 1])
  assert.deepEqual(run.slice(0, 5).map(([sigma, percent], i) => c.placeOf(list, [sigma, percent, i], run)), [0, 0.5, 1, 1.5, 2])
  assert.deepEqual(run.slice(0, 2).map(([sigma, percent], i) => c.placeOf(c.parse("0:1, 9:2 steps"), [sigma, percent, i], run)), [0, 1])
  assert.equal(c.format(c.onAxis(list, "sigma", run)), "14.6:8, 5:7, 0.3:6 sigma")
  assert.equal(c.format(c.onAxis(c.parse("8, 7, 6, 5, 4"), "steps", run)), "0:8, 1:7, 2:6, 3:5, 4:4 steps")
})

test("the axis of a run converts there and back", () => {
  const run = [[14.6, 0], [5, 0.2], [1, 0.6], [0, 1]]
  for (const [axis, x] of [["sigma", 5], ["steps", 1], ["percent", 0.2]]) {
    for (const [other, y] of [["sigma", 5], ["steps", 1], ["percent", 0.2]]) close(c.convert(x, axis, other, run), y)
  }
  close(c.convert(0.4, "percent", "sigma", run), 3)
  assert.equal(c.format(c.onAxis(c.parse("0:1, 0.2:7, 1:1 smooth"), "sigma", run)), "14.6:1, 5:7, 0:1 smooth sigma")
  assert.equal(c.format(c.onAxis(c.parse("14.6:1, 5:7, 0:1 sigma"), "steps", run)), "0:1, 1:7, 3:1 steps")
  assert.equal(c.format(c.onAxis(c.parse("7.5"), "steps")), "0:7.5, 20:7.5 steps")
})

test("positions on screen go left to right as the run does, and come back", () => {
  for (const text of ["0:1, 1:2", "0:1, 19:2 steps", "14.6:1, 0:2 sigma", "1:1, 0:2 sigma"]) {
    const made = c.parse(text)
    const view = c.axisView(made)
    const order = made.axis === "sigma" ? [view.end, 0] : [0, view.end]
    assert.deepEqual(order.map(view.unit), [0, 1])
    for (const u of [0, 0.1, 0.5, 0.77, 1]) close(view.unit(view.position(u)), u, 1e-9)
  }
})

test("the y-range has round ends around all values", () => {
  assert.deepEqual(c.rangeOf(c.parse("0:7.5, 1:1")), [0, 8])
  assert.deepEqual(c.rangeOf(c.parse("0:0, 1:0")).map(y => y > 0), [false, true])
  for (const text of ["12", "0:-3, 1:4", "0:100000, 1:2", "0:0.01, 1:0.002"]) {
    const made = c.parse(text)
    const [low, high] = c.rangeOf(made)
    for (const [, y] of made.points) assert.ok(low <= y && y < high, `${text}: ${low} ${high}`)
    assert.ok(c.ticks(low, high, 4).length >= 2)
  }
})
