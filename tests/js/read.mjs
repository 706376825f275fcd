// For tests/test_schedule.py: reads [text, positions] lines, writes [canonical text or null, values there, what is wrong].
import { createInterface } from "node:readline"
import { ScheduleError, curve, format, parse } from "../../web/js/curve.js"

for await (const line of createInterface({ input: process.stdin })) {
  const [text, positions] = JSON.parse(line)
  try {
    const schedule = parse(text)
    console.log(JSON.stringify([format(schedule), positions.map(curve(schedule)), null]))
  } catch (error) {
    if (!(error instanceof ScheduleError)) throw error
    console.log(JSON.stringify([null, [], error.message]))
  }
}
