/**
 * The backoff study of the AWS Architecture Blog, "Exponential Backoff And Jitter" (Marc Brooker, 2015), with the
 * library's own jitter variants.
 *
 * **Details**
 *
 * `N` clients each want to write one row under optimistic locking. A client reads the row's version, and writes if it is
 * still the same; else it backs off and begins again. All begin at once. Requests and answers take 10 ms, give or take
 * 2 (normally distributed); the base is 5 ms and the cap 2 s, as in the study. *Work* is the number of writes that were
 * tried, *time* the time until all have written.
 *
 * https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 *
 * @since 0.1.0
 */
import * as Backoff from "../retry/backoff.ts"
import * as Agenda from "../testing/agenda.ts"
import * as Seeded from "../testing/seeded.ts"

/**
 * How much work and time a variant took, in the mean of the runs.
 *
 * @category models
 * @since 0.1.0
 */
export interface Measured {
  readonly jitter: Backoff.Jitter
  readonly clients: number
  /** Writes tried by all clients together. */
  readonly work: number
  /** Until the last client has written. */
  readonly millis: number
}

/**
 * What is studied.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** @default 10, 20 ... 190 */
  readonly clients?: ReadonlyArray<number> | undefined
  /** Runs of which the mean is taken. @default 100 */
  readonly runs?: number | undefined
  /** @default 1 */
  readonly seed?: number | undefined
}

const base = 5
const cap = 2_000
const network = { mean: 10, deviation: 2 }

interface Client {
  attempts: number
  /** How long it waited before the last one. */
  waited: number | undefined
}

interface Message {
  readonly client: Client
  /** A write carries the version that was read; a read none. */
  readonly version: number | undefined
  /** Whether it is on its way to the row, or back. */
  readonly toRow: boolean
  readonly ok: boolean
}

/** One run: everybody begins at once, and it ends when everybody has written. */
const once = (
  jitter: Backoff.Jitter,
  clients: number,
  seed: number
): { readonly work: number; readonly millis: number } => {
  let draws = 0
  const unit = () => Seeded.unit(seed, clients, draws++)
  const delay = () => Math.max(0, network.mean + network.deviation * Seeded.normal(unit()))
  const onTheWay = Agenda.make<Message>()
  const read = (client: Client, at: number): void =>
    Agenda.add(onTheWay, at + delay(), { client, version: undefined, toRow: true, ok: true })
  let version = 0
  let work = 0
  let left = clients
  let at = 0
  for (let client = 0; client < clients; client++) read({ attempts: 0, waited: undefined }, at)
  while (left > 0) {
    at = Agenda.nextAt(onTheWay)
    const message = Agenda.takeDue(onTheWay, at)
    if (message === undefined) break
    const { client } = message
    if (message.toRow) {
      const reads = message.version === undefined
      const ok = reads || message.version === version
      if (!reads) work++
      const answered = reads ? version : undefined
      if (!reads && ok) version++
      Agenda.add(onTheWay, at + delay(), { client, version: answered, toRow: false, ok })
    } else if (message.version !== undefined) {
      Agenda.add(onTheWay, at + delay(), { client, version: message.version, toRow: true, ok: true })
    } else if (message.ok) {
      left--
    } else {
      client.attempts++
      client.waited = Backoff.delay({ base, factor: 2, cap, jitter }, client.attempts, client.waited, unit())
      read(client, at + client.waited)
    }
  }
  return { work, millis: at }
}

/**
 * Runs the study: every jitter variant with every number of clients. The same seed gives the same figures.
 *
 * @category running
 * @since 0.1.0
 */
export const study = ({ clients = tens, runs = 100, seed = 1 }: Options = {}): ReadonlyArray<Measured> =>
  Backoff.jitters.flatMap((jitter, variant) =>
    clients.map((count) => {
      let work = 0
      let millis = 0
      for (let run = 0; run < runs; run++) {
        const one = once(jitter, count, Seeded.hash(seed, variant, run))
        work += one.work
        millis += one.millis
      }
      return { jitter, clients: count, work: work / runs, millis: millis / runs }
    })
  )

const tens: ReadonlyArray<number> = Array.from({ length: 19 }, (_, index) => 10 * (index + 1))
