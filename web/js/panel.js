// A small window over the page, with a title to drag it by and a way to close it.

import { PALETTE, element, style } from "./plot.js"

const STYLE = `
.guidance-panel { ${PALETTE} position: fixed; z-index: 1000; display: flex; flex-direction: column; width: 420px; height: 340px; min-width: 320px; min-height: 290px;
  max-width: 100vw; max-height: 100vh; box-sizing: border-box; padding: 4px; resize: both; overflow: hidden; color: var(--ink);
  background: var(--comfy-menu-bg, #353535); border: 1px solid var(--edge); border-radius: 8px; box-shadow: 0 6px 24px #0006; font: 12px system-ui, sans-serif; }
.guidance-panel header { display: flex; align-items: center; justify-content: space-between; flex: none; padding: 2px 2px 2px 8px; cursor: move; touch-action: none; user-select: none; }
.guidance-panel header span { overflow: hidden; white-space: nowrap; text-overflow: ellipsis; }
.guidance-panel header button { border: 0; background: none; color: inherit; font: 16px/1 system-ui, sans-serif; width: 28px; height: 28px; border-radius: 4px; cursor: pointer; }
.guidance-panel header button:is(:hover, :focus-visible) { background: var(--back); }
.guidance-panel > :last-child { flex: 1 1 0; }
`

export class Panel {
  // closed(): called once, when it is gone.
  constructor(title, content, [left, top], closed) {
    style("guidance-panel-style", STYLE)
    this.closed = closed
    const close = element("button", { type: "button", "aria-label": "Close", title: "Close (Escape)" }, "×")
    const header = element("header", {}, element("span", {}, title), close)
    this.root = element("div", { class: "guidance-panel", role: "dialog", "aria-label": title }, header, content)
    document.body.append(this.root)
    this.move(left, top)
    close.onclick = () => this.close()
    header.onpointerdown = event => {
      if (event.target === close) return
      const { left, top } = this.root.getBoundingClientRect()
      this.grip = [left - event.clientX, top - event.clientY]
      header.setPointerCapture(event.pointerId)
    }
    header.onpointermove = event => this.grip && this.move(this.grip[0] + event.clientX, this.grip[1] + event.clientY)
    header.onlostpointercapture = () => { this.grip = null }
    this.root.addEventListener("keydown", event => {
      if (!event.ctrlKey && !event.metaKey) event.stopPropagation() // or Delete would remove the node
      if (event.key === "Escape" && event.target.tagName !== "INPUT") this.close()
    })
    close.focus({ preventScroll: true, focusVisible: false })
  }

  // It stays within the page.
  move(left, top) {
    const { offsetWidth, offsetHeight } = this.root
    this.root.style.left = `${Math.max(0, Math.min(left, innerWidth - offsetWidth))}px`
    this.root.style.top = `${Math.max(0, Math.min(top, innerHeight - offsetHeight))}px`
  }

  close() {
    this.root.remove()
    this.closed()
  }
}
