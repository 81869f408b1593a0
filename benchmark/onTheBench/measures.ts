/** What `benchmark/onTheBench.ts` measures of one server. */
import { call, connect, disconnect, quantile } from "../gateway/load.ts"
import { memoryOf, type Server } from "../gateway/processes.ts"
import { pieces } from "../gateway/upstream.ts"
import { spreadOf } from "../support/inTurns.ts"
import { setTimeout as sleep } from "node:timers/promises"

/** Calls over so many connections, one after the other on each. */
export interface Rung {
  readonly connections: number
  readonly perSecond: number
  /** In milliseconds. */
  readonly p50: number
  readonly p99: number
  readonly failed: number
}

/** The first quarter of the time opens the connections, and is not counted. */
export const rung = async (to: Server, connections: number, body: Buffer, seconds: number): Promise<Rung> => {
  const clients = connect(to, connections)
  const delays: Array<number> = []
  let failed = 0
  const from = performance.now() + seconds * 250
  const until = from + seconds * 1_000
  await Promise.all(
    clients.map(async (client) => {
      while (performance.now() < until) {
        const started = performance.now()
        const isAnswered = await call(client, to, body).then(
          () => true,
          () => false
        )
        if (!isAnswered) failed++
        else if (started >= from) delays.push(performance.now() - started)
      }
    })
  )
  const took = (performance.now() - from) / 1_000
  await disconnect(clients)
  delays.sort((one, other) => one - other)
  const at = (part: number): number => (delays.length === 0 ? Infinity : quantile(delays, part))
  return { connections, perSecond: delays.length / took, p50: at(0.5), p99: at(0.99), failed }
}

/** The most calls a second with a p99 within so many milliseconds, of rungs where none failed. */
export const within = (rungs: ReadonlyArray<Rung>, millis: number): Rung | undefined =>
  rungs
    .filter(({ failed, p99 }) => failed === 0 && p99 <= millis)
    .toSorted((one, other) => other.perSecond - one.perSecond)[0]

// -----------------------------------------------------------------------------
// Streams
// -----------------------------------------------------------------------------

/** Streams at once. Times are in milliseconds. */
export interface Streams {
  readonly count: number
  readonly first: number
  readonly p50: number
  readonly p99: number
  readonly longest: number
  /** Streams that broke, or in which a piece was missing. */
  readonly failed: number
}

const marker = "content_block_delta"

/** Streams that begin at times spread over one pause each. A gap is the time between two pieces of one stream. */
export const streams = async (to: Server, count: number, body: Buffer, each: number): Promise<Streams> => {
  const clients = connect(to, count)
  const [firsts, gaps]: [Array<number>, Array<number>] = [[], []]
  let failed = 0
  await Promise.all(
    clients.map(async (client, n) => {
      await sleep((1_000 * n) / count)
      for (let again = 0; again < each; again++) {
        const started = performance.now()
        let [seen, at] = [0, started]
        const onData = (chunk: Buffer): void => {
          const now = performance.now()
          // The name is there twice: as the event's, and as its type.
          const found = chunk.toString("latin1").split(`event: ${marker}`).length - 1
          if (found === 0) return
          ;(seen === 0 ? firsts : gaps).push(now - at)
          for (let more = 1; more < found; more++) gaps.push(0)
          seen += found
          at = now
        }
        await call(client, to, body, { onData }).then(
          () => void (failed += seen === pieces ? 0 : 1),
          () => void failed++
        )
      }
    })
  )
  await disconnect(clients)
  const sorted = (all: Array<number>): Array<number> => all.sort((one, other) => one - other)
  const of = (all: Array<number>, part: number): number => (all.length === 0 ? Infinity : quantile(sorted(all), part))
  return { count, first: of(firsts, 0.5), p50: of(gaps, 0.5), p99: of(gaps, 0.99), longest: of(gaps, 1), failed }
}

// -----------------------------------------------------------------------------
// Memory
// -----------------------------------------------------------------------------

/** In MB. */
export interface Memory {
  readonly idle: number
  readonly steady: number
  /** Whether it had stopped to grow before the time was over. */
  readonly isSteady: boolean
  readonly recovered: number
}

/** Of a server that was just started. `window` is how long it is watched at a time, in seconds, at most seven times. */
export const memory = async (to: Server, body: Buffer, window: number): Promise<Memory> => {
  const sample = async (seconds: number): Promise<ReadonlyArray<number>> => {
    const found: Array<number> = []
    for (let n = 0; n < 4; n++) {
      await sleep(seconds * 250)
      found.push(memoryOf(to))
    }
    return found
  }
  const idle = spreadOf(await sample(window)).median
  const over = new AbortController()
  const load = async (): Promise<void> => {
    while (!over.signal.aborted) await rung(to, 64, body, window)
  }
  const loading = load()
  let last = await sample(window)
  let isSteady = false
  for (let n = 0; n < 3 && !isSteady; n++) {
    const next = await sample(window)
    isSteady = Math.abs(spreadOf(next).median / spreadOf(last).median - 1) < 0.05
    last = next
  }
  over.abort()
  await loading
  return { idle, steady: spreadOf(last).median, isSteady, recovered: (await sample(2 * window)).at(-1)! }
}
