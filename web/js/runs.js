// What a run tells the page (nodes/telemetry.py). Only told() knows how its events are written.

// A row of a run, and a place of its timeline: {sigma, percent, step, value} and {sigma, percent}.
// To be deleted when the server sends these names itself: the line with Array.isArray, which reads rows without names.
const named = row => Array.isArray(row) ? { sigma: row[0], percent: row[1], step: row[2], value: row[3] } : row

// An event as [node id, news] pairs. news: {marker} while a run goes on, {timeline, applied, marker: null} at its end.
export function told({ nodes, timeline, ...now }) {
  if (!timeline) return Object.entries(nodes).map(([id, value]) => [id, { marker: { ...now, value } }])
  const places = timeline.map(named).map(({ sigma, percent }) => [sigma, percent]) // as curve.js counts on
  return Object.entries(nodes).map(([id, rows]) => [id, { timeline: places, applied: rows.map(named), marker: null }])
}

// What is known of a run after some news; `text` is the schedule that the editor has now. The rows of a run are those of
// its markers until it reports them all, and its text is the one it began with.
export function grown(run, news, text) {
  const begins = !run?.marker
  const applied = news.applied ?? [...(begins ? [] : run.applied), news.marker]
  return { timeline: run?.timeline ?? null, ...news, applied, text: begins ? text : run.text }
}
