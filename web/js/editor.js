// The picture of a schedule that can be dragged, typed and read. It knows curves and the DOM, and nothing of ComfyUI;
// schedule.js puts it on a node.

import * as c from "./curve.js"

const LEFT = 36, RIGHT = 14, TOP = 14, BOTTOM = 22 // around the plot, so that points at its ends can be caught
const SVG = "http://www.w3.org/2000/svg"

const STYLE = `
.guidance-schedule { --ink: var(--input-text, #ddd); --accent: color-mix(in srgb, var(--p-primary-color, #3b8eea) 60%, var(--ink)); --dim: color-mix(in srgb, var(--descrip-text, #999) 60%, var(--ink));
  position: relative; display: flex; flex-direction: column; gap: 4px; min-height: 240px; height: 100%; width: 100%;
  box-sizing: border-box; padding: 4px; font: 11px system-ui, sans-serif; color: var(--ink); user-select: none; }
.guidance-schedule .bar { display: flex; gap: 4px; align-items: center; flex: none; min-width: 0; }
.guidance-schedule :is(select, input, button) { font: inherit; color: var(--ink); background: var(--comfy-input-bg, #222);
  border: 1px solid var(--border-color, #4e4e4e); border-radius: 4px; height: 22px; padding: 0 4px; min-width: 0; box-sizing: border-box; }
.guidance-schedule select { flex: 1 1 0; }
.guidance-schedule input { width: 50px; text-align: right; user-select: text; }
.guidance-schedule :is(select, input, button):focus-visible { outline: 2px solid var(--accent); outline-offset: -1px; }
.guidance-schedule .note { flex: 1 1 0; color: var(--dim); overflow: hidden; white-space: nowrap; text-overflow: ellipsis; }
.guidance-schedule .note.wrong { color: var(--error-text, #ff4444); white-space: normal; max-height: 40px; }
.guidance-schedule svg { flex: 1 1 160px; min-height: 150px; width: 100%; touch-action: none; cursor: crosshair;
  background: var(--comfy-input-bg, #222); border: 1px solid var(--border-color, #4e4e4e); border-radius: 4px; box-sizing: border-box; overflow: hidden; }
.guidance-schedule .grid { stroke: var(--border-color, #4e4e4e); stroke-width: 1; opacity: .7; }
.guidance-schedule text { fill: var(--dim); font: 10px system-ui, sans-serif; }
.guidance-schedule .curve { fill: none; stroke: var(--accent); stroke-width: 2; }
.guidance-schedule .applied { fill: none; stroke: var(--ink); stroke-width: 1.2; opacity: .8; }
.guidance-schedule .marker { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 3 3; }
.guidance-schedule .marker-dot { fill: var(--ink); }
.guidance-schedule .point { fill: var(--accent); stroke: var(--comfy-input-bg, #222); stroke-width: 2; cursor: grab; outline: none; }
.guidance-schedule .point.selected { fill: var(--ink); stroke: var(--accent); }
.guidance-schedule .point:focus-visible { stroke: var(--ink); fill: var(--accent); }
.guidance-schedule.linked > :not(.hint) { opacity: .35; }
.guidance-schedule .hint { position: absolute; inset: 0; display: none; place-items: center; text-align: center; padding: 20px; }
.guidance-schedule.linked .hint { display: grid; }
`

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  made.append(...children)
  return made
}

function shape(tag, attributes = {}) {
  const made = document.createElementNS(SVG, tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value)
  return made
}

function choice(label, names, first) {
  const made = element("select", { "aria-label": label, title: label })
  if (first) made.append(element("option", { value: "" }, first))
  for (const name of names) made.append(element("option", { value: name }, name))
  return made
}

export class ScheduleEditor {
  // host.write(text): the new value. host.begin(), host.end(): around each gesture, which is one step of the page's
  // undo history. host.range: the y-range that the user has set, or null.
  constructor(host) {
    this.host = host
    this.saved = { schedule: c.parse("1"), text: "1", error: "" } // as the text field has it
    this.interaction = { selected: null, gesture: null, keys: false } // gone when the page is
    this.run = { timeline: null, applied: [], marker: null } // what the last run told
    this.build()
    this.observer = new ResizeObserver(() => this.draw())
  }

  build() {
    if (!document.getElementById("guidance-schedule-style")) {
      document.head.append(element("style", { id: "guidance-schedule-style" }, STYLE))
    }
    this.interpolation = choice("Between the points", c.INTERPOLATIONS)
    this.axis = choice("Unit of the positions", c.AXES)
    this.presets = choice("Presets: another course with the same mean", c.PRESETS, "presets")
    this.copyButton = element("button", { type: "button", title: "Copy the schedule as text" }, "copy")
    this.pasteButton = element("button", { type: "button", title: "Paste a schedule from text" }, "paste")
    this.x = element("input", { "aria-label": "Position of the selected point", title: "Position", placeholder: "position", inputmode: "decimal" })
    this.y = element("input", { "aria-label": "Value of the selected point", title: "Value", placeholder: "value", inputmode: "decimal" })
    this.note = element("span", { class: "note", role: "status" })
    this.low = element("input", { "aria-label": "Lowest value shown", title: "Lowest value shown; empty: by itself", inputmode: "decimal" })
    this.high = element("input", { "aria-label": "Highest value shown", title: "Highest value shown; empty: by itself", inputmode: "decimal" })
    this.svg = shape("svg", { role: "group", "aria-label": "Curve of the schedule. Arrow keys move a point, Shift moves it further, Insert adds one, Delete removes it, Enter types its value." })
    this.layers = Object.fromEntries(["grid", "curve", "applied", "marker", "points"].map(name => [name, shape("g")]))
    this.path = shape("path", { class: "curve" })
    this.layers.curve.append(this.path)
    this.svg.append(...Object.values(this.layers))
    this.root = element("div", { class: "guidance-schedule" },
      element("div", { class: "bar" }, this.interpolation, this.axis, this.presets, this.copyButton, this.pasteButton),
      this.svg,
      element("div", { class: "bar" }, this.x, this.y, this.note, this.low, this.high),
      element("div", { class: "hint" }, "Set from outside: by the link at the input, or on the subgraph's node."))

    this.interpolation.onchange = () => this.edit(({ points, axis }) => c.schedule(points, this.interpolation.value, axis))
    this.axis.onchange = () => this.edit(old => c.onAxis(old, this.axis.value, this.run.timeline))
    this.presets.onchange = () => this.applyPreset(this.presets.value)
    this.copyButton.onclick = () => this.copy()
    this.pasteButton.onclick = () => this.paste()
    for (const input of [this.x, this.y]) input.onchange = () => this.typePoint()
    for (const input of [this.low, this.high]) input.onchange = () => this.typeRange()
    this.root.addEventListener("keydown", event => this.keyInField(event))
    this.svg.addEventListener("pointerdown", event => this.pointerDown(event))
    this.svg.addEventListener("pointermove", event => this.pointerMove(event))
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
      this.svg.addEventListener(name, () => this.endGesture())
    }
    this.svg.addEventListener("contextmenu", event => this.removeAt(event))
    this.svg.addEventListener("keydown", event => this.keyDown(event))
    this.svg.addEventListener("keyup", () => this.endKeys())
    // Not on the svg, which a listener for focus makes a stop for Tab.
    this.root.addEventListener("focusout", () => this.endKeys())
    this.root.addEventListener("focusin", event => this.select(this.indexOf(event.target) ?? this.interaction.selected))
  }

  // On a node that is on a graph; a node may leave and come back.
  wake() {
    this.observer.observe(this.svg)
  }

  rest() {
    this.observer.disconnect()
    cancelAnimationFrame(this.frame)
    this.frame = undefined
  }

  // ---- from outside

  // The text changed: by hand, by undo, by loading. What cannot be read is said, and the last good curve stays.
  set(text) {
    if (text === this.saved.text) return
    const saved = { ...this.saved, text, error: "" }
    try {
      saved.schedule = c.parse(text)
    } catch (error) {
      saved.error = error.message
    }
    this.saved = saved
    this.interaction.selected = null
    this.draw()
  }

  setLinked(linked) {
    this.root.inert = linked
    this.root.classList.toggle("linked", linked)
  }

  setRun(run) {
    this.run = { ...this.run, ...run }
    this.draw()
  }

  // ---- edits

  // One gesture: old schedule in, new schedule out, one step to undo.
  edit(change) {
    this.host.begin()
    try {
      this.replace(change(this.saved.schedule))
    } finally {
      this.host.end()
    }
  }

  replace(schedule) {
    const text = c.format(schedule)
    this.saved = { schedule, text, error: "" }
    if (this.interaction.selected >= schedule.points.length) this.interaction.selected = null
    this.host.write(text)
    this.draw()
  }

  applyPreset(name) {
    this.presets.value = ""
    if (!name) return
    const { text } = this.saved
    const last = this.interaction.preset
    const level = last?.text === text ? last.level : c.level(this.saved.schedule, this.run.timeline)
    this.interaction.selected = null
    this.edit(() => c.preset(name, level.scale, level.off))
    this.interaction.preset = { text: this.saved.text, level }
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(this.saved.text)
      this.say("copied")
    } catch {
      this.say("This page may not copy: select the text field instead.", true)
    }
  }

  async paste() {
    try {
      const schedule = c.parse(await navigator.clipboard.readText())
      this.edit(() => schedule)
    } catch (error) {
      this.say(error instanceof c.ScheduleError ? error.message : "This page may not paste: use the text field instead.", true)
    }
  }

  typePoint() {
    const { selected } = this.interaction
    const [x, y] = [this.x, this.y].map(input => (input.value.trim() === "" ? NaN : Number(input.value)))
    if (selected === null || !Number.isFinite(x) || !Number.isFinite(y)) return this.redraw(true)
    this.edit(old => c.movePoint(old, selected, x, y, 1e-6))
  }

  typeRange() {
    const [low, high] = [this.low, this.high].map(input => (input.value.trim() === "" ? null : Number(input.value)))
    const usable = [low, high].every(end => end === null || Number.isFinite(end)) && !(low !== null && high !== null && low >= high)
    if (usable) {
      this.host.begin()
      this.host.range = low === null && high === null ? null : [low, high]
      this.host.end()
    }
    this.draw()
  }

  select(index) {
    if (index === this.interaction.selected) return
    this.interaction.selected = index
    this.draw()
  }

  // ---- pointer

  pointerDown(event) {
    if (event.button !== 0) return
    event.preventDefault()
    event.stopPropagation()
    const { view, range } = this.look()
    this.host.begin()
    let index = this.indexOf(event.target)
    if (index === null) {
      const [x, y] = this.place(event, view, range)
      const [schedule, added] = c.addPoint(this.saved.schedule, x, y)
      index = added
      this.replace(schedule)
      if (schedule.points.length === 1) index = 0
    }
    // The scale stays what it is until the end of the gesture, or the curve would run away from the pointer.
    this.interaction.gesture = { index, view, range, latest: null }
    this.interaction.selected = index
    this.svg.setPointerCapture(event.pointerId)
    this.redraw()
    this.circles()[index]?.focus({ preventScroll: true })
  }

  pointerMove(event) {
    const { gesture } = this.interaction
    if (!gesture) return
    gesture.latest = event
    this.draw() // at most once a frame
  }

  endGesture() {
    if (!this.interaction.gesture) return
    this.drag()
    this.interaction.gesture = null
    this.host.end()
    this.draw()
  }

  drag() {
    const { gesture } = this.interaction
    if (!gesture?.latest) return
    const [x, y] = this.place(gesture.latest, gesture.view, gesture.range)
    gesture.latest = null
    const moved = c.movePoint(this.saved.schedule, gesture.index, x, y, gesture.view.resolution)
    if (c.format(moved) === this.saved.text) return
    this.saved = { schedule: moved, text: c.format(moved), error: "" }
    this.host.write(this.saved.text)
  }

  // Where a pointer is in the schedule's own numbers; with Shift, on the grid.
  place(event, view, [low, high]) {
    const { width, height } = this.size()
    const pointer = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.svg.getScreenCTM().inverse())
    const grid = c.nice((high - low) / 20)
    const x = view.position(c.clamp((pointer.x - LEFT) / width, 0, 1))
    const y = high - ((pointer.y - TOP) / height) * (high - low)
    return [c.round(x, event.shiftKey ? view.grid : view.resolution), c.round(y, event.shiftKey ? grid : grid / 20)]
  }

  removeAt(event) {
    const index = this.indexOf(event.target)
    if (index === null) return
    event.preventDefault()
    event.stopPropagation()
    this.remove(index)
  }

  remove(index) {
    this.edit(old => c.removePoint(old, index))
    this.redraw()
  }

  // ---- keyboard

  keyDown(event) {
    const index = this.indexOf(event.target)
    if (event.ctrlKey || event.metaKey || event.altKey) {
      if (index !== null && !event.altKey && !event.shiftKey && "cv".includes(event.key.toLowerCase())) {
        this.handled(event)
        if (event.key.toLowerCase() === "c") this.copy()
        else this.paste()
      }
      return
    }
    const { view, range: [low, high] } = this.look()
    const { schedule } = this.saved
    const many = event.shiftKey ? 5 : 1
    const up = c.nice((high - low) / 100)
    const move = {
      ArrowLeft: [-many, 0], ArrowRight: [many, 0], ArrowUp: [0, many * up], ArrowDown: [0, -many * up],
      PageUp: [0, 10 * up], PageDown: [0, -10 * up], Home: [-Infinity, 0], End: [Infinity, 0],
    }[event.key]
    if (index === null || !(move || ["Delete", "Backspace", "Insert", "Enter"].includes(event.key))) return
    this.handled(event)
    const [x, y] = schedule.points[index]
    if (event.key === "Enter") return this.y.select()
    if (event.key === "Insert") {
      const next = schedule.points[index + (schedule.axis === "sigma" ? -1 : 1)]?.[0] ?? view.position(1)
      const middle = c.round((x + next) / 2, view.resolution)
      let added
      this.edit(old => ([, added] = c.addPoint(old, middle, c.round(c.curve(old)(middle), up / 10)))[0])
      this.focusPoint(added)
    } else if (move) {
      if (!this.interaction.keys) this.host.begin() // a held key is one gesture
      this.interaction.keys = true
      this.replace(c.movePoint(schedule, index, view.stepped(x, move[0]), c.round(y + move[1], up / 10), view.resolution))
      this.focusPoint(index)
    } else {
      this.remove(index)
      this.focusPoint(Math.min(index, this.saved.schedule.points.length - 1))
    }
  }

  endKeys() {
    if (!this.interaction.keys) return
    this.interaction.keys = false
    this.host.end()
  }

  focusPoint(index) {
    this.interaction.selected = index
    this.redraw()
    this.circles()[index].focus({ preventScroll: true })
  }

  // Or the page would take Delete for the node.
  handled(event) {
    event.preventDefault()
    event.stopPropagation()
  }

  keyInField(event) {
    if (event.target.tagName !== "INPUT") return
    if (event.key === "Escape") this.redraw(true)
    if (["Enter", "Escape"].includes(event.key)) event.target.blur()
  }

  // ---- drawing

  say(text, wrong = false) {
    this.note.textContent = text
    this.note.title = text
    this.note.classList.toggle("wrong", wrong)
  }

  size() {
    return { width: Math.max(this.svg.clientWidth - LEFT - RIGHT, 1), height: Math.max(this.svg.clientHeight - TOP - BOTTOM, 1) }
  }

  // The scales of the picture: of the gesture while there is one.
  look() {
    const { gesture } = this.interaction
    if (gesture) return gesture
    const { schedule } = this.saved
    const [low, high] = c.rangeOf(schedule)
    const [least, most] = this.host.range ?? [null, null]
    const values = schedule.points.map(point => point[1])
    return {
      view: c.axisView(schedule, this.run.timeline),
      range: [Math.min(least ?? low, ...values), Math.max(most ?? high, ...values)],
    }
  }

  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.drag()
      this.redraw()
    })
  }

  // force: also a field that somebody is typing in.
  redraw(force = false) {
    cancelAnimationFrame(this.frame)
    this.frame = undefined
    if (!this.svg.clientWidth) return
    const { schedule, error } = this.saved
    const { view, range: [low, high] } = this.look()
    const { width, height } = this.size()
    const px = x => LEFT + view.unit(x) * width
    const py = y => TOP + c.clamp((high - y) / (high - low), -0.02, 1.02) * height
    this.drawGrid(view, low, high, px, py)
    this.path.setAttribute("d", this.line(schedule, view, width, px, py))
    this.drawRun(schedule.axis, px, py)
    this.drawPoints(schedule, view, px, py)
    this.interpolation.value = schedule.interpolation
    this.interpolation.disabled = schedule.points.length === 1
    this.axis.value = schedule.axis
    for (const [input, end, shown] of [[this.low, 0, low], [this.high, 1, high]]) {
      if (force || document.activeElement !== input) input.value = this.host.range?.[end] ?? ""
      input.placeholder = c.number(c.round(shown, 1e-3))
    }
    if (error) this.say(error, true)
    else this.describe(schedule, force)
  }

  drawGrid(view, low, high, px, py) {
    const key = JSON.stringify([view.end, view.ticks, low, high, this.svg.clientWidth, this.svg.clientHeight])
    if (key === this.drawnGrid) return
    this.drawnGrid = key
    const lines = []
    const label = (x, y, text, anchor) => {
      const made = shape("text", { x, y, "text-anchor": anchor })
      made.textContent = text
      lines.push(made)
    }
    for (const y of c.ticks(low, high, 5)) {
      lines.push(shape("line", { class: "grid", x1: LEFT, x2: this.svg.clientWidth - RIGHT, y1: py(y), y2: py(y) }))
      label(LEFT - 5, py(y) + 3, c.number(y), "end")
    }
    let last = -Infinity
    for (const x of [...view.ticks].sort((a, b) => view.unit(a) - view.unit(b))) {
      if (px(x) - last < 26) continue
      last = px(x)
      lines.push(shape("line", { class: "grid", x1: last, x2: last, y1: TOP, y2: this.svg.clientHeight - BOTTOM }))
      label(last, this.svg.clientHeight - 7, c.number(x), "middle")
    }
    this.layers.grid.replaceChildren(...lines)
  }

  // The curve as a path: straight where it is, else finely cut.
  line(schedule, view, width, px, py) {
    const { points, interpolation, axis } = schedule
    const f = c.curve(schedule)
    const [left, right] = [view.position(0), view.position(1)]
    if (interpolation === "step") {
      const inOrder = axis === "sigma" ? [...points].reverse() : points
      return `M${px(left)} ${py(f(left))}` + inOrder.map(([x, y]) => `H${px(x)}V${py(y)}`).join("") + `H${px(right)}`
    }
    const cuts = Array.from({ length: Math.ceil(width / 3) }, (_, i) => view.position((i * 3) / width))
    const xs = [...cuts, right, ...points.map(([x]) => x)].sort((a, b) => view.unit(a) - view.unit(b))
    return "M" + xs.map(x => `${px(x).toFixed(1)} ${py(f(x)).toFixed(1)}`).join("L")
  }

  drawRun(axis, px, py) {
    const { applied, marker } = this.run
    const column = c.AXES.indexOf(axis)
    const at = row => px([row[1], row[0], row[2]][column])
    this.layers.applied.replaceChildren(...applied.map(row => shape("circle", { class: "applied", cx: at(row), cy: py(row[3]), r: 3.5 })))
    this.layers.marker.replaceChildren(...(marker ? [
      shape("line", { class: "marker", x1: at(marker), x2: at(marker), y1: TOP, y2: this.svg.clientHeight - BOTTOM }),
      shape("circle", { class: "marker-dot", cx: at(marker), cy: py(marker[3]), r: 3.5 }),
    ] : []))
  }

  // The same circles are used again, so that the one in focus stays it.
  drawPoints({ points, axis }, view, px, py) {
    const layer = this.layers.points
    while (layer.childElementCount > points.length) layer.lastElementChild.remove()
    while (layer.childElementCount < points.length) layer.append(shape("circle", { class: "point", r: 6, tabindex: 0, role: "slider" }))
    this.circles().forEach((circle, i) => {
      const [x, y] = points[i]
      const attributes = {
        cx: px(x), cy: py(y), "aria-label": `Point ${i + 1} of ${points.length}`, "aria-valuenow": y,
        "aria-valuetext": `${axis} ${c.number(x)}, value ${c.number(y)}`,
      }
      for (const [name, value] of Object.entries(attributes)) circle.setAttribute(name, value)
      circle.classList.toggle("selected", i === this.interaction.selected)
    })
  }

  circles() {
    return [...this.layers.points.children]
  }

  indexOf(target) {
    const index = this.circles().indexOf(target)
    return index < 0 ? null : index
  }

  // The selected point in numbers, and in the other units where a run has told them.
  describe({ points, axis }, force) {
    const point = points[this.interaction.selected ?? -1]
    for (const [input, i] of [[this.x, 0], [this.y, 1]]) {
      input.disabled = !point
      if (force || document.activeElement !== input) input.value = point ? c.number(point[i]) : ""
    }
    const { timeline } = this.run
    if (!point) return this.say(timeline ? "circles: last run" : "click adds a point")
    const others = c.AXES.filter(other => other !== axis)
    this.say(timeline ? others.map(other => `${other} ${c.convert(point[0], axis, other, timeline).toPrecision(3)}`).join(", ")
      : "run to see sigma")
  }
}
