/** The queue that knows: calls go in the order in which they come, each as soon as the provider's bucket holds what it needs. */
import { Bucket, Cache, type Result, secondsOf, type Turn, type Workload } from "./trace.ts"

interface Event {
  readonly at: number
  readonly run: () => void
}

export const play = (workload: Workload): Result => {
  const bucket = new Bucket(workload)
  const cache = new Cache(workload)
  const line: Array<Turn & { readonly next: () => void }> = []
  const events: Array<Event> = []
  let now = 0
  let end = 0
  const ends: Array<number> = []

  const after = (seconds: number, run: () => void) => void events.push({ at: now + seconds, run })
  const turn = (session: number, index: number): void => {
    const call = workload.sessions[session]![index]
    if (call === undefined) {
      end = Math.max(end, now)
      ends[session] = now
    } else after(call.pause, () => void line.push({ ...call, next: () => turn(session, index + 1) }))
  }
  /** Serves the first call if it fits now; otherwise returns how long it waits. */
  const serve = (): number => {
    const head = line[0]
    if (head === undefined) return Infinity
    bucket.advance(now)
    const need = cache.needOf(head, now)
    const wait = bucket.wait(need)
    if (wait > 0) return wait
    bucket.level -= need
    cache.use(head, now)
    line.shift()
    after(secondsOf(head, workload), head.next)
    return 0
  }

  for (const session of workload.sessions.keys()) turn(session, 0)
  for (;;) {
    const wait = serve()
    if (wait === 0) continue
    const next = events.reduce<Event | undefined>((one, other) => (one && one.at <= other.at ? one : other), undefined)
    if (next === undefined && wait === Infinity) break
    if (next === undefined || now + wait < next.at) now += wait
    else {
      events.splice(events.indexOf(next), 1)
      now = next.at
      next.run()
    }
  }
  const mean = ends.reduce((one, other) => one + other, 0) / ends.length
  return { seconds: end, mean, ends, rejected: 0, lost: 0 }
}
