/**
 * The backoff study of the AWS Architecture Blog, "Exponential Backoff And Jitter" (Marc Brooker, 2015): its own jitters,
 * and `proportional`, which is `Schedule.jittered`.
 *
 * **Details**
 *
 * `N` clients each write one row under optimistic locking. A client reads the row's version and writes if it has not changed;
 * otherwise it backs off and starts again. All start at once. Requests and answers take 10 ms with a standard deviation of 2 ms; the
 * base is 5 ms and the cap 2 s, as in the study. *Work* is the number of attempted writes, and *time* the time until all have written.
 *
 * https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 *
 * @stability experimental
 * @since 0.1.0
 */
import { Stepwise } from "floodgate/internal"
import * as Seeded from "./seeded.ts"

type Jitter = "full" | "equal" | "decorrelated" | "proportional" | "none"

/**
 * The work and time of a variant, as means of the runs.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export interface Measured {
  readonly jitter: Jitter
  readonly clients: number
  /** Attempted writes of all clients together. */
  readonly work: number
  /** Until the last client has written. */
  readonly millis: number
}

/**
 * The options of the study.
 *
 * @stability experimental
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** @default 10, 20 ... 190 */
  readonly clients?: ReadonlyArray<number> | undefined
  /** How many runs the means are taken of. @default 100 */
  readonly runs?: number | undefined
  /** @default 1 */
  readonly seed?: number | undefined
}

const base = 5
const cap = 2_000
const network = { mean: 10, deviation: 2 }

const jitters: ReadonlyArray<Jitter> = ["full", "equal", "decorrelated", "proportional", "none"]

/** The wait of a client after `failed` attempts, if its last wait was `before`; `random` is in [0, 1). */
const waitOf = (jitter: Jitter, failed: number, before: number, random: number): number => {
  const whole = Math.min(cap, base * 2 ** (failed - 1))
  switch (jitter) {
    case "full":
      return random * whole
    case "equal":
      return ((1 + random) * whole) / 2
    case "decorrelated":
      return Math.min(cap, base + random * (3 * before - base))
    case "proportional":
      return (0.8 + 0.4 * random) * whole
    case "none":
      return whole
  }
}

interface StudyClient {
  failed: number
  /** How long it waited before its last attempt. */
  waited: number
}

interface StudyMessage {
  readonly arrivesAt: number
  readonly client: StudyClient
  /** The version that a write expects; undefined for a read. */
  readonly version: number | undefined
  /** Whether it travels to the row, or back to the client. */
  readonly toRow: boolean
  readonly ok: boolean
}

/** Inserts a message, so that the next to arrive is last. Each client has one under way, so the list stays short. */
const post = (messages: Array<StudyMessage>, message: StudyMessage): void => {
  let at = messages.length
  while (at > 0 && messages[at - 1]!.arrivesAt <= message.arrivesAt) at--
  messages.splice(at, 0, message)
}

/** One run: all clients begin at once, and it ends when all have written. */
const once = (jitter: Jitter, clients: number, seed: number): { readonly work: number; readonly millis: number } => {
  const unit = Seeded.draws(seed)
  const delay = () => Math.max(0, network.mean + network.deviation * Seeded.normal(unit))
  const underWay: Array<StudyMessage> = []
  const send = (at: number, message: Omit<StudyMessage, "arrivesAt">): void =>
    post(underWay, { ...message, arrivesAt: at + delay() })
  const read = (client: StudyClient, at: number): void =>
    send(at, { client, version: undefined, toRow: true, ok: true })
  let version = 0
  let work = 0
  let left = clients
  let at = 0
  for (let client = 0; client < clients; client++) read({ failed: 0, waited: base }, at)
  while (left > 0) {
    const message = underWay.pop()!
    const { client } = message
    at = message.arrivesAt
    if (message.toRow) {
      const reads = message.version === undefined
      const ok = reads || message.version === version
      if (!reads) work++
      const answered = reads ? version : undefined
      if (!reads && ok) version++
      send(at, { client, version: answered, toRow: false, ok })
    } else if (message.version !== undefined) {
      send(at, { client, version: message.version, toRow: true, ok: true })
    } else if (message.ok) {
      left--
    } else {
      client.failed++
      client.waited = waitOf(jitter, client.failed, client.waited, unit())
      read(client, at + client.waited)
    }
  }
  return { work, millis: at }
}

/**
 * Runs the study: every jitter variant with every number of clients. The same seed gives the same figures.
 *
 * @stability experimental
 * @category running
 * @since 0.1.0
 */
export const study = (options: Options = {}): ReadonlyArray<Measured> => Stepwise.drained(studySteps(options))

/**
 * {@link study} in steps of some milliseconds, because it takes seconds.
 *
 * @stability experimental
 * @category running
 * @since 0.2.0
 */
export function* studySteps({ clients = tens, runs = 100, seed = 1 }: Options = {}): Stepwise.Stepwise<
  ReadonlyArray<Measured>
> {
  const measured: Array<Measured> = []
  for (const [variant, jitter] of jitters.entries()) {
    for (const count of clients) {
      let work = 0
      let millis = 0
      for (let run = 0; run < runs; run++) {
        const one = once(jitter, count, Seeded.seedFor(seed, variant, count, run))
        work += one.work
        millis += one.millis
        yield
      }
      measured.push({ jitter, clients: count, work: work / runs, millis: millis / runs })
    }
  }
  return measured
}

const tens: ReadonlyArray<number> = Array.from({ length: 19 }, (_, index) => 10 * (index + 1))
