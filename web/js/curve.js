// Schedules as text and as curves: the same grammar, numbers and interpolation as guidance/schedule.py, whose
// docstring is the specification; tests/schedules.json holds the two together. Nothing here knows a page.

export const INTERPOLATIONS = ["linear", "smooth", "step"]
export const AXES = ["percent", "sigma", "steps"]
const LIMIT = 1e6
const MOST_POINTS = 1000

const BLANKS = /[ \t\r\n]*/y
const TOKEN = /(?<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))|(?<word>[A-Za-z_]+)|(?<mark>.)/suy
const PLAIN = /^[+-]?(?:[0-9]{1,6}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})$/
const PIECE = /[^ \t\r\n,;:()]{0,20}/uy
const PIECE_BEFORE = /[^ \t\r\n,;:()]*$/
const NUMBER = "a number with up to 6 digits and 9 decimals"

export class ScheduleError extends Error {}

// A schedule: {points: [[position, value], ...] ascending, interpolation, axis}, and `list: true` on one that has a
// number for each step, at positions 0, 1, 2, ... Never changed, only replaced.
export function schedule(points, interpolation = "linear", axis = "percent") {
  const sorted = points.map(([x, y]) => [tidy(x), tidy(y)]).sort((a, b) => a[0] - b[0])
  if (sorted.length < 1 || sorted.length > MOST_POINTS) {
    throw new ScheduleError(`A schedule has 1 to ${MOST_POINTS} points, not ${sorted.length}.`)
  }
  for (let i = 1; i < sorted.length; i++) {
    if (sorted[i][0] === sorted[i - 1][0]) {
      throw new ScheduleError(`Two points are at ${number(sorted[i][0])}; each needs a position of its own.`)
    }
  }
  for (const [x] of sorted) {
    if (x < 0 || (axis === "percent" && x > 1)) {
      const allowed = axis === "percent" ? "from 0 to 1; for steps or noise levels, end in steps or sigma" : "0 or more"
      throw new ScheduleError(`A point is at ${number(x)}; positions in ${axis} are ${allowed}.`)
    }
  }
  if (sorted.length === 1) return { points: [[0, sorted[0][1]]], interpolation: "linear", axis: "percent" }
  return { points: sorted, interpolation, axis }
}

// One number for each step, which a run with another number of steps stretches; of a single number, the constant.
export function perStep(values, interpolation = "linear") {
  const made = schedule(values.map((y, i) => [i, y]), interpolation, "steps")
  return values.length === 1 ? made : { ...made, list: true }
}

// The schedule that a text means. Linear in the text, which is read up to the first mistake.
export function parse(text) {
  const reader = new Reader(text)
  const items = []
  let positions = false
  let separated = true
  while (!items.length || (separated && (reader.kind === "number" || reader.token === "("))) {
    if (items.length === MOST_POINTS) throw new ScheduleError(`There are more than ${MOST_POINTS} points, which is the most.`)
    const first = reader.number()
    positions ||= !items.length && reader.token === ":"
    if (positions) reader.mark(":", "a colon and a value, as in 0.5:6,")
    items.push(positions ? [first, reader.number()] : first)
    separated = reader.separator()
  }
  const isList = !positions && items.length > 1
  const words = new Map([...INTERPOLATIONS.map(word => [word, "interpolation"]), ...(isList ? ["steps"] : AXES).map(word => [word, "axis"])])
  const chosen = {}
  while (reader.kind === "word") {
    const word = reader.token.toLowerCase()
    const kind = words.get(word)
    if (!kind || kind in chosen) break
    chosen[kind] = word
    reader.step()
    reader.separator()
  }
  if (reader.kind !== "end") {
    const first = Object.keys(chosen).length ? [] : [separated ? NUMBER : "a comma"]
    reader.fail(...first, ...[...words.keys()].filter(word => !(words.get(word) in chosen)), "the end")
  }
  return positions ? schedule(items, chosen.interpolation, chosen.axis) : perStep(items, chosen.interpolation)
}

// A text from left to right: `token` is the next one, `kind` what it is.
class Reader {
  constructor(text) {
    this.text = text
    this.end = 0
    this.step()
  }

  step() {
    const blanks = matchAt(BLANKS, this.text, this.end)[0]
    this.newLine = /[\r\n]/.test(blanks)
    this.start = this.end + blanks.length
    const found = matchAt(TOKEN, this.text, this.start)
    this.kind = found ? Object.keys(found.groups).find(kind => found.groups[kind] !== undefined) : "end"
    this.token = found ? found[0] : ""
    this.end = this.start + this.token.length
  }

  number() {
    const bracket = this.token === "("
    if (bracket) this.step()
    if (this.kind !== "number" || !PLAIN.test(this.token)) this.fail(NUMBER)
    const value = Number(this.token)
    this.step()
    if (bracket) this.mark(")", "a closing bracket after a plain number")
    return value
  }

  mark(mark, meaning) {
    if (this.token !== mark) this.fail(meaning)
    this.step()
  }

  // Whether there is one here; it is read.
  separator() {
    if (this.token !== "," && this.token !== ";") return this.newLine
    this.step()
    return true
  }

  fail(...allowed) {
    const choice = words => words.length > 1 ? `${words.slice(0, -1).join(", ")} or ${words[words.length - 1]}` : words[0]
    if (this.kind === "end") throw new ScheduleError(`The text ends where ${choice(allowed)} belongs.`)
    let start = this.start
    if (matchAt(PIECE, this.token, 0)[0]) { // to the user 1e3 is one piece, and not the number 1 with something after it
      const before = PIECE_BEFORE.exec(this.text.slice(Math.max(start - 20, 0), start))[0]
      start -= before.length
    }
    const piece = matchAt(PIECE, this.text, start)[0] || this.token
    if (start < this.start && "+-.0123456789".includes(piece[0])) allowed = [NUMBER]
    let character = 1 // as people count them: code points
    for (const _ of this.text.slice(0, start)) character++
    throw new ScheduleError(`${JSON.stringify(piece)} is character ${character}, where ${choice(allowed)} belongs.`)
  }
}

function matchAt(pattern, text, place) {
  pattern.lastIndex = place
  return pattern.exec(text)
}

export function format({ points, interpolation, axis, list }) {
  if (points.length === 1) return number(points[0][1])
  const inRunOrder = axis === "sigma" ? [...points].reverse() : points
  const items = inRunOrder.map(([x, y]) => (list ? number(y) : `${number(x)}:${number(y)}`))
  const words = [interpolation === "linear" ? "" : interpolation, axis === "percent" || list ? "" : axis].filter(Boolean)
  return [items.join(", "), ...words].join(" ")
}

// The value as a function of the position on the schedule's own axis.
export function curve({ points, interpolation, axis }) {
  const slopes = interpolation === "smooth" && points.length > 1 ? monotoneSlopes(points) : []
  const last = points.length - 1
  return x => {
    if (x <= points[0][0]) return points[0][1]
    if (x >= points[last][0]) return points[last][1]
    let i = points.findIndex(point => point[0] > x) - 1
    const [x0, y0] = points[i]
    const [x1, y1] = points[i + 1]
    if (interpolation === "step") return axis === "sigma" && x > x0 ? y1 : y0
    const width = x1 - x0
    const t = (x - x0) / width
    if (interpolation === "linear") return y0 + t * (y1 - y0)
    const t2 = t * t
    const t3 = t2 * t
    return (2 * t3 - 3 * t2 + 1) * y0 + (t3 - 2 * t2 + t) * width * slopes[i] + (3 * t2 - 2 * t3) * y1 + (t3 - t2) * width * slopes[i + 1]
  }
}

function monotoneSlopes(points) {
  const secants = points.slice(1).map(([x, y], i) => (y - points[i][1]) / (x - points[i][0]))
  const inner = secants.slice(1).map((b, i) => (secants[i] * b > 0 ? (secants[i] + b) / 2 : 0))
  const slopes = [secants[0], ...inner, secants[secants.length - 1]]
  secants.forEach((secant, i) => {
    if (secant === 0) {
      slopes[i] = slopes[i + 1] = 0
      return
    }
    const before = slopes[i] / secant
    const after = slopes[i + 1] / secant
    const steepness = Math.sqrt(before * before + after * after)
    if (steepness > 3) {
      slopes[i] *= 3 / steepness
      slopes[i + 1] *= 3 / steepness
    }
  })
  return slopes
}

function tidy(value) {
  const rounded = Number(Number(value).toFixed(9)) + 0 // + 0 makes -0 into 0
  if (!Number.isFinite(rounded) || Math.abs(rounded) >= LIMIT) {
    throw new ScheduleError(`${value} is not a number between -1000000 and 1000000.`)
  }
  return rounded
}

export function number(value) {
  return value.toFixed(9).replace(/\.?0+$/, "")
}

// ---- edits: each takes a schedule and gives another one

// Move a point; it stays between its neighbours, `gap` away from them.
// In a list only its value changes.
export function movePoint(old, index, x, y, gap = 1e-3) {
  if (old.list) return withNumber(old, index, clamp(y, 1 - LIMIT, LIMIT - 1))
  const { points, interpolation, axis } = old
  const lowest = index > 0 ? points[index - 1][0] + gap : 0
  const highest = index < points.length - 1 ? points[index + 1][0] - gap : axis === "percent" ? 1 : LIMIT - 1
  const held = lowest <= highest ? clamp(x, lowest, highest) : points[index][0]
  const value = clamp(y, 1 - LIMIT, LIMIT - 1)
  return schedule(points.map((point, i) => (i === index ? [held, value] : point)), interpolation, axis)
}

function withNumber({ points, interpolation }, index, y) {
  return perStep(points.map((point, i) => (i === index ? y : point[1])), interpolation)
}

// The same points, with something else between them.
export function withInterpolation({ points, axis, list }, interpolation) {
  return list ? perStep(points.map(([, y]) => y), interpolation) : schedule(points, interpolation, axis)
}

// Add a point, or move the one that is there already: [schedule, its index]. A list has one for each step already.
export function addPoint(old, x, y) {
  if (old.list) {
    const index = clamp(Math.round(x), 0, old.points.length - 1)
    return [withNumber(old, index, y), index]
  }
  const others = old.points.filter(([position]) => position !== tidy(x))
  if (others.length === MOST_POINTS) return [old, 0]
  const next = schedule([...others, [x, y]], old.interpolation, old.axis)
  return [next, next.points.findIndex(([position]) => position === tidy(x))]
}

export function removePoint({ points, interpolation, axis, list }, index) {
  if (points.length === 1) return schedule(points)
  const others = points.filter((_, i) => i !== index)
  return list ? perStep(others.map(([, y]) => y), interpolation) : schedule(others, interpolation, axis)
}

// ---- axes

// A run, as its last report told: rows [sigma, percent] for every step, and one for the end.
const COLUMN = { sigma: run => run.map(row => row[0]), percent: run => run.map(row => row[1]), steps: run => run.map((_, i) => i) }
// Before a run has told: a model from sigma 14.6 in 20 steps, with everything evenly spaced.
const NO_RUN = [[14.6, 0], [0, 1]]
const NO_RUN_STEPS = 20

export function convert(x, from, to, run) {
  if (from === to) return x
  const table = run ?? NO_RUN
  const steps = run ? 1 : NO_RUN_STEPS
  const scaled = axis => COLUMN[axis](table).map(value => (axis === "steps" ? value * steps : value))
  return lookUp(x, scaled(from), scaled(to))
}

function lookUp(x, xs, ys) {
  const rising = xs[xs.length - 1] >= xs[0]
  const after = xs.findIndex(value => (rising ? value >= x : value <= x))
  if (after === 0) return ys[0]
  if (after < 0) return ys[ys.length - 1]
  const t = (x - xs[after - 1]) / (xs[after] - xs[after - 1])
  return ys[after - 1] + t * (ys[after] - ys[after - 1])
}

// Where a list's own position, or back, is among the steps of a run.
const stretch = ({ points, list }, run) => (list ? Math.max((run?.length ?? NO_RUN_STEPS + 1) - 2, 0) / (points.length - 1) : 1)

// Where a row [sigma, percent, step] of a run's report is on the schedule's own axis.
export function placeOf(schedule, [sigma, percent, step], run) {
  return { sigma, percent, steps: step / (stretch(schedule, run) || 1) }[schedule.axis]
}

// The same curve over another unit; points that fall on one another there become one.
export function onAxis(old, axis, run) {
  if (old.points.length === 1) {
    const end = axis === "percent" ? 1 : convert(axis === "sigma" ? 0 : 1, "percent", axis, run)
    return schedule([[0, old.points[0][1]], [end, old.points[0][1]]], old.interpolation, axis)
  }
  const steps = stretch(old, run)
  const positions = new Map(old.points.map(([x, y]) => [tidy(round(convert(x * steps, old.axis, axis, run), 1e-4)), y]))
  return schedule([...positions], old.interpolation, axis)
}

// How an axis is drawn: `unit` from a position to 0 (left, the start of the run) .. 1 (right), `position` back, and
// `stepped` n small steps to the right.
// A list fills the whole of it, as it does the run.
export function axisView({ points, axis, list }, run) {
  const last = points[points.length - 1][0]
  if (axis === "percent") {
    return { end: 1, grid: 0.05, resolution: 0.001, ticks: [0, 0.25, 0.5, 0.75, 1], unit: x => x, position: u => u, stepped: (x, n) => clamp(x + n / 100, 0, 1) }
  }
  if (axis === "steps") {
    const end = list ? last : Math.max(last, run ? run.length - 2 : NO_RUN_STEPS - 1, 1)
    return { end, grid: 1, resolution: list ? 1 : 0.1, ticks: ticks(0, end, 5), unit: x => x / end, position: u => u * end, stepped: (x, n) => clamp(x + n, 0, end) }
  }
  const end = Math.max(last, run ? run[0][0] : last)
  const power = end > 2 ? 3 : 1 // most of a run is at small sigmas, so a long axis is drawn by cube roots
  const marks = [1, 0.5, 0.2, 0.1, 0.05, 0.01, 0.001, 0].map(part => nice(part * end))
  const unit = x => 1 - (x / end) ** (1 / power)
  const position = u => end * (1 - u) ** power
  return {
    end, unit, position, grid: end > 2 ? 0.5 : 0.05, resolution: 0.001,
    ticks: power === 1 ? ticks(0, end, 5) : [0, ...marks.filter(x => x > end / 200 && x <= end)],
    stepped: (x, n) => round(position(clamp(unit(x) + n / 100, 0, 1)), 0.001),
  }
}

// ---- numbers to look at

export const clamp = (x, low, high) => Math.min(Math.max(x, low), high)
export const round = (x, grid) => Number((Math.round(x / grid) * grid).toFixed(9))

// The largest of 1, 2, 5 times a power of ten that is not above x.
export function nice(x) {
  if (!(x > 0)) return 0
  const power = 10 ** Math.floor(Math.log10(x) + 1e-9)
  return Number((([5, 2].find(digit => digit * power <= x * (1 + 1e-9)) ?? 1) * power).toPrecision(6))
}

export function ticks(low, high, count) {
  const step = nice(((high - low) / count) * 1.5) || 1
  const first = Math.ceil(low / step - 1e-9)
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => round((first + i) * step, step / 10))
}

// The y-range that shows all values: from 0 or below, with some room above.
export function rangeOf({ points }) {
  const values = points.map(([, y]) => y)
  const low = Math.min(0, ...values)
  const high = Math.max(...values, low + 1e-3)
  const step = nice((high - low) / 4)
  return [Math.floor(low / step + 1e-9) * step, round((Math.floor((high * 1.02) / step) + 1) * step, step / 10)]
}

// ---- presets: the shapes of guidance/presets.py over t/T (1 at the most noise, 0 at none), here with a few points to drag

const density = (run, a, b) => (gamma(a + b) / (gamma(a) * gamma(b))) * run ** (a - 1) * (1 - run) ** (b - 1)
const gamma = n => (n <= 1 ? 1 : (n - 1) * gamma(n - 1)) // of whole numbers

export const SHAPES = {
  "linear up": t => 2 * (1 - t),
  "linear down": t => 2 * t,
  "cosine up": t => 1 + Math.cos(Math.PI * t),
  "cosine down": t => 1 - Math.cos(Math.PI * t),
  "low-high-low": t => 2 * (1 - Math.abs(2 * t - 1)),
  "powered cosine": (t, power = 4) => (1 - Math.cos(Math.PI * (1 - t) ** power)) / 2,
  exponential: (t, rate = 0.693) => Math.exp(rate * (1 - t)),
  beta: (t, a = 2, b = 3) => density(1 - t, a, b),
}
const POINTS = { "linear up": 2, "linear down": 2, "low-high-low": 3 }
export const PRESETS = ["constant", "linear up", "linear down", "cosine up", "cosine down", "clamp-linear",
  "powered cosine", "interval", "low-high-low", "exponential", "beta"]

// As guidance/presets.py: scale is the mean where the shape has one of 1; off is the value that does nothing.
export function preset(name, scale, off) {
  const cent = y => round(y, 0.01)
  if (name === "constant") return schedule([[0, scale]])
  if (name === "interval") return schedule([[10.84, off], [5.42, scale], [0.28, off]], "step", "sigma")
  if (name === "clamp-linear") {
    const floor = off + 0.3 * (scale - off)
    return schedule([[0, cent(floor)], [0.15, cent(floor)], [1, cent(off + 2 * (scale - off))]])
  }
  const count = POINTS[name] ?? 7
  const points = Array.from({ length: count }, (_, i) => i / (count - 1))
    .map(percent => [round(percent, 0.001), cent(off + (scale - off) * SHAPES[name](1 - percent))])
  return schedule(points, count > 3 ? "smooth" : "linear")
}

// What a preset should keep of a curve: its mean, and whether it goes below 1, which for a cfg is off.
export function level(old, run) {
  const f = curve(old)
  const view = axisView(old, run)
  const values = Array.from({ length: 64 }, (_, i) => f(view.position((i + 0.5) / 64)))
  return { scale: round(values.reduce((a, b) => a + b) / 64, 0.01), off: Math.min(...values) < 1 ? 0 : 1 }
}
