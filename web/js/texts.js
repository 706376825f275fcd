// Texts for negatives (nodes/negative_texts.py): choosing a subject writes its text on the node, to be edited. What was typed there
// stays.

import { app } from "../../../scripts/app.js"

app.registerExtension({
  name: "guidance.texts",
  nodeCreated(node) {
    if (node.comfyClass !== "GuidanceNegativeTexts") return
    const texts = node.constructor.nodeData.input.required.subject[1].guidance_texts
    const [subject, text] = ["subject", "text"].map(name => node.widgets.find(widget => widget.name === name))
    const { callback } = subject
    subject.callback = function (...given) {
      const result = callback?.apply(this, given)
      if (!text.value.trim() || Object.values(texts).includes(text.value)) text.value = texts[subject.value]
      return result
    }
  },
})
