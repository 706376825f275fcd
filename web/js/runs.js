// What a run tells the page (nodes/bridge/page.py). Only told() knows how its events are written.

// An event as [node id, news] pairs. news: {marker} while a run goes on, {timeline, applied, marker: null} at its end.
export function told({ nodes, timeline, ...now }) {
  if (!timeline) return Object.entries(nodes).map(([id, value]) => [id, { marker: { ...now, value } }])
  const places = timeline.map(({ sigma, percent }) => [sigma, percent]) // as curve.js counts on
  return Object.entries(nodes).map(([id, rows]) => [id, { timeline: places, applied: rows, marker: null }])
}

// What is known of a run after some news; `text` is the schedule that the editor has now. The rows of a run are those of
// its markers until it reports them all, and its text is the one it began with.
export function grown(run, news, text) {
  const begins = !run?.marker
  const applied = news.applied ?? [...(begins ? [] : run.applied), news.marker]
  return { timeline: run?.timeline ?? null, ...news, applied, text: begins ? text : run.text }
}
