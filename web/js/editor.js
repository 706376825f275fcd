// The picture of a schedule that can be dragged, typed and read. It knows curves and the DOM, and nothing of ComfyUI;
// schedule.js puts it on a node.

import * as c from "./curve.js"
import { PALETTE, Plot, element, shape, style } from "./plot.js"

const REACH = 12 // pixels of the screen from a point within which a press takes hold of it
const RADIUS = 5.5 // of a point where there is room
const CROWDED = 8, LOST = 1.5 // pixels from point to point below which they are dots, and below which only the curve is drawn
const AXIS = {
  percent: ["percent", "percent of the run, from 0 to 1"],
  sigma: ["sigma", "sigma, the noise level"],
  steps: ["step", "step of the run, from 0"],
}

const STYLE = `
.guidance-schedule { ${PALETTE} position: relative; display: flex; flex-direction: column; gap: 4px; min-height: 240px; height: 100%; width: 100%;
  box-sizing: border-box; padding: 4px; font: 11px system-ui, sans-serif; color: var(--ink); user-select: none; -webkit-user-select: none; }
.guidance-schedule :is(.bar, .cells) { display: flex; gap: 4px 6px; align-items: center; flex: none; min-width: 0; }
.guidance-schedule .fields { flex-wrap: wrap; }
.guidance-schedule .cells { flex: 1 1 300px; height: 22px; }
.guidance-schedule :is(select, input, button) { font: inherit; color: var(--ink); background: var(--back);
  border: 1px solid var(--edge); border-radius: 4px; height: 22px; padding: 0 4px; margin: 0; min-width: 0; box-sizing: border-box; }
.guidance-schedule :is(select, button):hover:enabled { border-color: var(--accent); }
.guidance-schedule :is(input, button):disabled { opacity: .45; }
.guidance-schedule select { flex: 1 1 0; }
.guidance-schedule button { padding: 0 8px; cursor: pointer; }
.guidance-schedule button:disabled { cursor: default; }
.guidance-schedule label { display: flex; align-items: center; gap: 4px; color: var(--dim); white-space: nowrap; min-width: 0; }
.guidance-schedule .first { flex: 0 1 106px; justify-content: space-between; }
.guidance-schedule .second { flex: 0 1 92px; justify-content: space-between; }
.guidance-schedule input { width: 56px; flex: none; text-align: right; user-select: text; font-variant-numeric: tabular-nums; }
.guidance-schedule input::placeholder { color: var(--dim); opacity: .75; font-style: italic; }
.guidance-schedule :is(select, input, button):focus-visible { outline: 2px solid var(--accent); outline-offset: -1px; }
.guidance-schedule .note { flex: 1 1 0; min-width: 0; color: var(--dim); text-align: right; overflow: hidden; white-space: nowrap; text-overflow: ellipsis; }
.guidance-schedule.wrong .note { color: var(--wrong); text-align: left; white-space: normal; line-height: 11px; max-height: 22px; }
.guidance-schedule.wrong .range label { display: none; }
.guidance-schedule .guidance-plot { flex: 1 1 150px; min-height: 130px; width: 100%; touch-action: none; cursor: crosshair; }
.guidance-schedule .guidance-plot.near { cursor: grab; }
.guidance-schedule .guidance-plot.held { cursor: grabbing; }
.guidance-schedule .applied.old { opacity: .25; }
.guidance-schedule .point { fill: var(--accent); stroke: var(--back); stroke-width: 1.5; outline: none; }
.guidance-schedule .crowded .point { stroke: none; fill: var(--ink); }
.guidance-schedule .lost .point { opacity: 0; }
.guidance-schedule .lost .curve { stroke-width: 1.25; }
.guidance-schedule .point.point.near { opacity: 1; fill: var(--accent); stroke: var(--ink); }
.guidance-schedule .point.point:is(.selected, :focus-visible) { opacity: 1; fill: var(--ink); stroke: var(--accent); stroke-width: 2.5; }
.guidance-schedule.linked > :not(.hint) { opacity: .35; }
.guidance-schedule .hint { position: absolute; inset: 0; display: none; place-items: center; text-align: center; padding: 20px 40px; }
.guidance-schedule .hint span { background: var(--back); border: 1px solid var(--edge); border-radius: 6px; padding: 8px 12px; }
.guidance-schedule.linked .hint { display: grid; }
`

function choice(label, names, first) {
  const made = element("select", { "aria-label": label, title: label })
  if (first) made.append(element("option", { value: "" }, first))
  for (const name of names) made.append(element("option", { value: name }, name))
  return made
}

const field = label => element("input", { "aria-label": label, title: label, inputmode: "decimal" })
const button = (text, title) => element("button", { type: "button", title }, text)

export class ScheduleEditor {
  // host.write(text): the new value. host.begin(), host.end(): around each gesture, which is one step of the page's
  // undo history. host.range: the y-range that the user has set, or null.
  constructor(host) {
    this.host = host
    this.saved = { schedule: c.parse("1"), text: "1", error: "" } // as the text field has it
    this.interaction = { selected: null, near: null, gesture: null, keys: false } // gone when the page is
    this.run = { timeline: null, applied: [], marker: null, text: null } // what the last run told
    this.build()
    this.observer = new ResizeObserver(() => this.draw())
  }

  build() {
    style("guidance-schedule-style", STYLE)
    this.interpolation = choice("Between the points", c.INTERPOLATIONS)
    this.axis = choice("Unit of the positions", c.AXES)
    this.presets = choice("Presets: another course with the same mean", c.PRESETS, "presets")
    this.copyButton = button("copy", "Copy the schedule as text")
    this.pasteButton = button("paste", "Paste a schedule from text")
    this.removeButton = button("remove", "Remove the selected point (Delete, or right-click it)")
    this.x = field("Position of the selected point")
    this.y = field("Value of the selected point")
    this.low = field("Lowest value shown; empty: by itself")
    this.high = field("Highest value shown; empty: by itself")
    this.unit = element("span")
    this.note = element("span", { class: "note", role: "status" })
    this.plot = new Plot("Curve of the schedule. Arrow keys move a point, Shift moves it further, Insert adds one, Delete removes it, Enter types its value.")
    this.svg = this.plot.element
    const label = (text, input, name = "") => element("label", { class: name }, text, input)
    this.root = element("div", { class: "guidance-schedule" },
      element("div", { class: "bar" }, this.interpolation, this.axis, this.presets, this.copyButton, this.pasteButton),
      this.svg,
      element("div", { class: "bar fields" },
        element("div", { class: "cells" }, label(this.unit, this.x, "first"), label("value", this.y, "second"), this.removeButton),
        element("div", { class: "cells range" }, label("range", this.low, "first"), label("to", this.high, "second"), this.note)),
      element("div", { class: "hint" }, this.hint = element("span")))

    this.interpolation.onchange = () => this.edit(old => c.withInterpolation(old, this.interpolation.value))
    this.axis.onchange = () => this.edit(old => c.onAxis(old, this.axis.value, this.run.timeline))
    this.presets.onchange = () => this.applyPreset(this.presets.value)
    this.copyButton.onclick = () => this.copy()
    this.pasteButton.onclick = () => this.paste()
    this.removeButton.onclick = () => this.remove(this.interaction.selected)
    for (const input of [this.x, this.y]) input.onchange = () => this.typePoint()
    for (const input of [this.low, this.high]) input.onchange = () => this.typeRange()
    this.root.addEventListener("keydown", event => this.keyInField(event))
    this.svg.addEventListener("pointerdown", event => this.pointerDown(event))
    this.svg.addEventListener("pointermove", event => this.pointerMove(event))
    this.svg.addEventListener("pointerleave", () => this.hover(null))
    for (const name of ["pointerup", "lostpointercapture"]) this.svg.addEventListener(name, event => this.endGesture(event))
    this.svg.addEventListener("pointercancel", () => this.cancelGesture())
    this.svg.addEventListener("contextmenu", event => this.removeAt(event))
    this.svg.addEventListener("keydown", event => this.keyDown(event))
    this.svg.addEventListener("keyup", () => this.endKeys())
    // Not on the svg, which a listener for focus makes a stop for Tab.
    this.root.addEventListener("focusout", () => this.endKeys())
    this.root.addEventListener("focusin", event => this.select(this.indexOf(event.target) ?? this.interaction.selected))
    this.escape = event => {
      if (event.key !== "Escape") return
      this.handled(event)
      this.cancelGesture()
    }
  }

  // On a node that is on a graph; a node may leave and come back.
  wake() {
    this.observer.observe(this.svg)
  }

  rest() {
    this.release()
    this.endKeys()
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
    this.release()
    this.saved = saved
    const focused = this.indexOf(document.activeElement)
    this.interaction.selected = focused < saved.schedule.points.length ? focused : null
    this.interaction.near = null
    this.draw()
  }

  // why: what decides instead of this editor, or null.
  setLinked(why) {
    this.root.inert = Boolean(why)
    this.root.classList.toggle("linked", Boolean(why))
    this.hint.textContent = why ?? ""
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
      this.tell("copied")
    } catch {
      this.tell("This page may not copy: select the text field instead.", true)
    }
  }

  async paste() {
    try {
      const schedule = c.parse(await navigator.clipboard.readText())
      this.edit(() => schedule)
    } catch (error) {
      this.tell(error instanceof c.ScheduleError ? error.message : "This page may not paste: use the text field instead.", true)
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
    this.message = null
    if (index === this.interaction.selected) return
    this.interaction.selected = index
    this.draw()
  }

  remove(index) {
    if (index === null) return
    this.edit(old => c.removePoint(old, index))
    this.focusPoint(Math.min(index, this.saved.schedule.points.length - 1))
  }

  // ---- pointer

  pointerDown(event) {
    if (event.button !== 0) return
    if (this.interaction.gesture) return this.cancelGesture() // by another finger: it was the page that was meant
    const spot = this.plot.spot(event)
    const { view, range } = this.look()
    let index = this.nearest(spot)
    const inside = spot.u >= 0 && spot.u <= 1 && spot.v >= 0 && spot.v <= 1
    if (index === null && !inside) return this.select(null)
    this.handled(event)
    this.endKeys()
    const before = this.saved
    this.interaction.gesture = { index, view, range, before, pointer: event.pointerId, latest: null, beyond: false }
    this.host.begin()
    if (index === null) {
      const [schedule, added] = c.addPoint(before.schedule, ...this.place(event))
      if (schedule === before.schedule) {
        this.release()
        return this.tell(`A schedule has at most ${schedule.points.length} points.`, true)
      }
      this.interaction.gesture.index = index = schedule.points.length === 1 ? 0 : added
      this.replace(schedule)
    }
    this.interaction.selected = index
    this.svg.setPointerCapture(event.pointerId)
    this.svg.classList.add("held")
    window.addEventListener("keydown", this.escape, true) // wherever the focus is
    this.redraw()
    this.circles()[index]?.focus({ preventScroll: true })
  }

  pointerMove(event) {
    const { gesture } = this.interaction
    if (!gesture) return this.hover(event.pointerType === "touch" ? null : this.nearest(this.plot.spot(event)))
    if (event.pointerId !== gesture.pointer) return
    gesture.latest = event
    this.draw() // at most once a frame
  }

  endGesture(event) {
    const { gesture } = this.interaction
    if (!gesture || (event && event.pointerId !== gesture.pointer)) return
    this.drag()
    this.release()
  }

  cancelGesture() {
    const { gesture } = this.interaction
    if (!gesture) return
    const { before } = gesture
    const now = this.saved
    this.saved = before
    if (now.text !== before.text) this.host.write(before.text)
    if (now.schedule.points.length !== before.schedule.points.length) this.interaction.selected = null
    this.release()
  }

  release() {
    if (!this.interaction.gesture) return
    this.interaction.gesture = null
    this.svg.classList.remove("held")
    window.removeEventListener("keydown", this.escape, true)
    this.host.end()
    this.draw()
  }

  drag() {
    const { gesture } = this.interaction
    if (!gesture?.latest) return
    const [x, y] = this.place(gesture.latest)
    gesture.latest = null
    const moved = c.movePoint(this.saved.schedule, gesture.index, x, y, gesture.view.resolution)
    const text = c.format(moved)
    if (text === this.saved.text) return
    this.saved = { schedule: moved, text, error: "" }
    this.host.write(text)
  }

  // Where the pointer of a gesture is in the schedule's own numbers; with Shift on the grid, with Ctrl also out of range.
  place(event) {
    const { gesture } = this.interaction
    const { view, range: [low, high] } = gesture
    const { u, v } = this.plot.spot(event)
    gesture.beyond = event.ctrlKey || event.metaKey
    const held = gesture.beyond ? at => at : at => c.clamp(at, 0, 1)
    const grid = c.nice((high - low) / 20)
    const y = c.round(high - held(v) * (high - low), event.shiftKey ? grid : grid / 20)
    return [c.round(view.position(held(u)), event.shiftKey ? view.grid : view.resolution), gesture.beyond ? y : c.clamp(y, low, high)]
  }

  // The point that a press takes hold of, or null.
  nearest({ x, y, scale }) {
    if (!this.plot.view) return null
    let [best, index] = [REACH * scale, null]
    this.saved.schedule.points.forEach(([position, value], i) => {
      const distance = Math.hypot(this.plot.px(position) - x, this.plot.py(value) - y)
      if (distance <= best) [best, index] = [distance, i]
    })
    return index
  }

  hover(index) {
    if (index === this.interaction.near) return
    this.interaction.near = index
    this.svg.classList.toggle("near", index !== null)
    this.draw()
  }

  removeAt(event) {
    const held = this.interaction.gesture // by a long touch
    const index = this.nearest(this.plot.spot(event))
    if (!held && index === null) return
    this.handled(event)
    if (held) return
    this.edit(old => c.removePoint(old, index))
    this.interaction.selected = null
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
    if (event.key === "Insert" && !schedule.list) {
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

  // What came of an action: said until the text changes or a point is selected.
  tell(text, wrong = false) {
    this.message = { text, wrong, of: this.saved.text }
    this.draw()
  }

  say(text, wrong = false) {
    this.note.textContent = text
    this.note.title = text
    this.root.classList.toggle("wrong", wrong)
  }

  // The scales of the picture. Those of a gesture stay what they are until its end, or the curve would run away from the
  // pointer; only a point that goes beyond them makes them wider.
  look() {
    const { gesture } = this.interaction
    const { schedule } = this.saved
    const values = schedule.points.map(point => point[1])
    const [low, high] = gesture?.range ?? c.rangeOf(schedule)
    const [least, most] = (gesture ? null : this.host.range) ?? [null, null]
    const view = c.axisView(schedule, this.run.timeline)
    return {
      view: gesture && !(gesture.beyond && view.end > gesture.view.end) ? gesture.view : view,
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
    if (!this.plot.visible) return
    const { schedule, error } = this.saved
    const { view, range } = this.look()
    const [unit, title] = AXIS[schedule.axis]
    this.plot.axes({ view, range, x: title, y: "value" })
    this.plot.path("curve", this.line(schedule, view))
    this.drawRun(schedule)
    this.drawPoints(schedule)
    this.interpolation.value = schedule.interpolation
    this.interpolation.disabled = schedule.points.length === 1
    this.axis.value = schedule.axis
    this.unit.textContent = unit
    for (const [input, end] of [[this.low, 0], [this.high, 1]]) {
      if (force || document.activeElement !== input) input.value = this.host.range?.[end] ?? ""
      input.placeholder = c.number(c.round(range[end], 1e-3))
    }
    this.describe(schedule, force)
    if (error) this.say(error, true)
    else if (this.message?.of === this.saved.text) this.say(this.message.text, this.message.wrong)
  }

  // The curve as a path: straight where it is, else finely cut.
  line(schedule, view) {
    const { points, interpolation, axis } = schedule
    const { plot } = this
    const f = c.curve(schedule)
    const inOrder = axis === "sigma" ? [...points].reverse() : points
    const ends = [view.position(0), view.position(1)].map(x => [x, f(x)])
    if (interpolation === "step") {
      return plot.through([ends[0]]) + inOrder.map(([x, y]) => `H${plot.px(x).toFixed(1)}V${plot.py(y).toFixed(1)}`).join("") + `H${plot.right}`
    }
    const bent = interpolation === "smooth" || axis === "sigma" // which may be drawn by roots
    const cuts = Array.from({ length: bent ? Math.ceil(plot.width / 3) : 0 }, (_, i) => view.position((i * 3) / plot.width)).map(x => [x, f(x)])
    return plot.through([...ends, ...cuts, ...points].sort((a, b) => view.unit(a[0]) - view.unit(b[0])))
  }

  drawRun(schedule) {
    const { plot } = this
    const { applied, marker, text, timeline } = this.run
    const place = ({ sigma, percent, step }) => c.placeOf(schedule, [sigma, percent, step], timeline)
    const now = text === this.saved.text
    const rows = applied.map(row => [place(row), row.value])
    const shown = plot.circles("applied", rows, rows.length > 60 ? 1.5 : 3, { class: now ? "applied" : "applied old" })
    const at = marker && plot.px(place(marker))
    plot.path("marker", marker ? `M${at} ${plot.top}V${plot.bottom}` : "")
    const hidden = rows.length - shown
    plot.legend.textContent = !rows.length ? "" :
      (marker ? "○ this run" : now ? "○ last run" : "○ run before this edit") + (hidden ? `, ${hidden} out of range` : "")
  }

  // The same circles are used again, so that the one in focus stays it, and only what has changed is touched.
  drawPoints({ points, axis }) {
    const { plot } = this
    const { selected, near } = this.interaction
    const layer = plot.over
    while (layer.childElementCount > points.length) layer.lastElementChild.remove()
    while (layer.childElementCount < points.length) layer.append(shape("circle", { tabindex: 0, role: "slider" }))
    const frame = `${plot.key} ${points.length} ${axis}`
    const drawn = this.drawn?.frame === frame ? this.drawn : { frame }
    this.drawn = drawn
    const room = plot.width / points.length
    for (const [name, most] of [["crowded", CROWDED], ["lost", LOST]]) this.svg.classList.toggle(name, room < most)
    this.circles().forEach((circle, i) => {
      const [x, y] = points[i]
      const name = `point${i === selected ? " selected" : ""}${i === near ? " near" : ""}`
      const last = drawn[i]
      if (last && last.x === x && last.y === y && last.name === name) return
      drawn[i] = { x, y, name }
      const attributes = {
        cx: plot.px(x), cy: plot.py(y), r: name === "point" ? c.clamp(room / 2.4, 1.6, RADIUS) : RADIUS, class: name,
        "aria-label": `Point ${i + 1} of ${points.length}`, "aria-valuenow": y, "aria-valuetext": `${axis} ${c.number(x)}, value ${c.number(y)}`,
      }
      for (const [name, value] of Object.entries(attributes)) circle.setAttribute(name, value)
    })
  }

  circles() {
    return [...this.plot.over.children]
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
    this.removeButton.disabled = !point || points.length === 1
    const { timeline } = this.run
    if (!point) return this.say("press to add a point")
    const others = c.AXES.filter(other => other !== axis)
    this.say(timeline ? others.map(other => `${AXIS[other][0]} ${c.convert(point[0], axis, other, timeline).toPrecision(3)}`).join(", ")
      : "run to see sigma")
  }
}
