// Curves over labelled axes, in the page's own colours. It knows nothing of schedules, nodes or the host, and whoever
// draws with it says what the axes are:
//
//   const plot = new Plot("What a screen reader says")
//   parent.append(plot.element)
//   plot.axes({ view, range: [low, high], x: "step of the run", y: "value" })    // view: as curve.js's axisView makes
//   plot.path("curve", d)              // one path for each name, cut off at the box; plot.through(rows) makes a d of points
//   plot.circles("applied", rows, 3)   // of [position, value] rows those in range; the answer is how many
//
// Positions and values become pixels by px() and py(), and an event becomes a place in the picture by spot().

import { number, ticks } from "./curve.js"

const SVG = "http://www.w3.org/2000/svg"
const SIDE = 12, TOP = 22, BOTTOM = 36 // around the box; on the left also the numbers, as wide as they are
const DIGIT = 7 // pixels that a digit takes

export const PALETTE = `
  --ink: var(--input-text, #ddd); --back: var(--guidance-back, color-mix(in srgb, var(--comfy-input-bg, #222) 60%, var(--comfy-menu-bg, #353535))); --edge: var(--border-color, #4e4e4e);
  --accent: color-mix(in srgb, var(--p-primary-color, #3b8eea) 60%, var(--ink));
  --dim: color-mix(in srgb, var(--descrip-text, #999) 45%, var(--ink));
  --wrong: color-mix(in srgb, var(--error-text, #ff4444) 75%, var(--ink));`

const STYLE = `
[data-node-id] { --guidance-back: var(--component-node-widget-background); } /* Nodes 2.0 has its own */
.guidance-plot { ${PALETTE} display: block; box-sizing: border-box; border-radius: 6px; background: var(--back); overflow: hidden; }
.guidance-plot .box { fill: color-mix(in srgb, var(--ink) 4%, transparent); stroke: var(--edge); }
.guidance-plot .grid { stroke: var(--edge); opacity: .55; }
.guidance-plot .zero { stroke: var(--dim); opacity: .8; }
.guidance-plot text { fill: var(--dim); font: 11px system-ui, sans-serif; font-variant-numeric: tabular-nums; }
.guidance-plot .title { font-size: 10.5px; }
.guidance-plot .curve { fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round; }
.guidance-plot .applied { fill: none; stroke: var(--ink); stroke-width: 1.2; opacity: .85; transition: opacity .3s; }
.guidance-plot .marker { fill: var(--ink); stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 3 3; }
`

export function element(tag, attributes = {}, ...children) {
  return dressed(document.createElement(tag), attributes, children)
}

export function shape(tag, attributes = {}, ...children) {
  return dressed(document.createElementNS(SVG, tag), attributes, children)
}

function dressed(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  made.append(...children)
  return made
}

export function style(id, text) {
  if (!document.getElementById(id)) document.head.append(element("style", { id }, text))
}

export class Plot {
  constructor(label) {
    style("guidance-plot-style", STYLE)
    this.frame = shape("g")
    this.inside = shape("svg", { overflow: "hidden" })
    this.marks = shape("g") // not cut off, as what is out of range is left out
    this.over = shape("g") // for what is to be taken hold of
    this.legend = shape("text", { class: "title", y: TOP - 8, "text-anchor": "end" })
    this.element = shape("svg", { class: "guidance-plot", role: "group", "aria-label": label }, this.frame, this.inside, this.marks, this.over, this.legend)
    this.paths = {}
  }

  get visible() {
    return this.element.clientWidth > 0
  }

  // What is drawn from now on is drawn over these axes. Nothing happens when they are those of last time.
  axes({ view, range: [low, high], x, y }) {
    const { clientWidth, clientHeight } = this.element
    const key = JSON.stringify([view.end, view.ticks, low, high, x, y, clientWidth, clientHeight])
    this.view = view
    if (key === this.key) return
    this.key = key
    const marks = ticks(low, high, clientHeight < 170 ? 4 : 5)
    const left = 9 + DIGIT * Math.max(...marks.map(mark => number(mark).length), 2)
    const [width, height] = [clientWidth - left - SIDE, clientHeight - TOP - BOTTOM].map(size => Math.max(size, 1))
    Object.assign(this, { low, high, left, width, height, right: left + width, bottom: TOP + height, top: TOP })
    this.drawFrame(marks, x, y)
  }

  drawFrame(marks, x, y) {
    const { left, right, bottom } = this
    const label = (text, x, y, anchor, name = "") => shape("text", { x, y, "text-anchor": anchor, class: name }, text)
    const parts = [shape("rect", { class: "box", x: left, y: TOP, width: this.width, height: this.height })]
    for (const mark of marks) {
      const at = this.py(mark)
      parts.push(shape("line", { class: mark === 0 ? "zero" : "grid", x1: left, x2: right, y1: at, y2: at }), label(number(mark), left - 5, at + 4, "end"))
    }
    let free = -Infinity
    for (const mark of [...this.view.ticks].sort((a, b) => this.px(a) - this.px(b))) {
      const [at, half] = [this.px(mark), (number(mark).length * DIGIT) / 2]
      if (at - half < free) continue
      free = at + half + 6
      parts.push(shape("line", { class: "grid", x1: at, x2: at, y1: TOP, y2: bottom }), label(number(mark), Math.min(at, right + SIDE - 2 - half), bottom + 14, "middle"))
    }
    parts.push(label(x, (left + right) / 2, bottom + 29, "middle", "title"), label(y, left, TOP - 8, "start", "title"))
    this.frame.replaceChildren(...parts)
    this.legend.setAttribute("x", right)
    const [dx, dy] = [this.width + 4, this.height + 4] // half a line's width beyond the box
    for (const [name, value] of Object.entries({ x: left - 2, y: TOP - 2, width: dx, height: dy, viewBox: `${left - 2} ${TOP - 2} ${dx} ${dy}` })) {
      this.inside.setAttribute(name, value)
    }
  }

  px(position) {
    return this.left + this.view.unit(position) * this.width
  }

  py(value) {
    return TOP + ((this.high - value) / (this.high - this.low)) * this.height
  }

  holds(value) {
    return value >= this.low && value <= this.high
  }

  path(name, d, attributes = {}, layer = this.inside) {
    this.paths[name] ??= layer.appendChild(shape("path"))
    if (this.paths[name].getAttribute("d") !== d) this.paths[name].setAttribute("d", d)
    dressed(this.paths[name], { class: name, ...attributes }, [])
  }

  through(rows) {
    return rows.length ? "M" + rows.map(([x, y]) => `${this.px(x).toFixed(1)} ${this.py(y).toFixed(1)}`).join("L") : ""
  }

  circles(name, rows, r, attributes) {
    const shown = rows.filter(([, value]) => this.holds(value))
    const ring = ([x, y]) => `M${(this.px(x) - r).toFixed(1)} ${this.py(y).toFixed(1)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`
    this.path(name, shown.map(ring).join(""), attributes, this.marks)
    return shown.length
  }

  // Where an event is: x and y in the picture's own pixels, u and v from 0 to 1 in the box from the left and the top,
  // and how many of the picture's pixels a pixel of the screen is.
  spot(event) {
    const { left, top, width } = this.element.getBoundingClientRect()
    const scale = this.element.clientWidth / width
    const [x, y] = [(event.clientX - left) * scale, (event.clientY - top) * scale]
    return { x, y, u: (x - this.left) / this.width, v: (y - TOP) / this.height, scale }
  }
}
