/**
 * The news of places that processes which share a store tell each other: the last answers, and the calls without one. It is
 * one record for each pool, which a process reads or replaces at most once a second, and only while its own calls use the pool. If a
 * record is lost, the processes learn for themselves.
 */
import * as Effect from "effect/Effect"
import * as Lru from "../domain/input/lru.ts"
import type { PlaceEnd, PlaceExchange, SentCall } from "../domain/placeCalls.ts"
import type { StoreError, Stored, StoreSettings } from "./models.ts"
import type { AnswersOptions } from "./port.ts"
import * as Read from "./readers.ts"
import { Time } from "./time.ts"

/** Incremented when the stored form of a record changes, so that processes of two versions never read each other's records. */
const format = 1

const intervalMillis = 1_000
/** The answers, and the calls under way, that a record has. More say nothing new. */
const maxCalls = 16
const maxPools = 1_000
/** After this many conflicts in a row the next exchange tries again. */
const maxConflicts = 4
/** A record that nobody has replaced for so long says nothing about now. */
const keepMillis = 600_000

// -----------------------------------------------------------------------------
// The record
// -----------------------------------------------------------------------------

/** Whose call it is: the name of a process. */
interface Owned {
  readonly by: string
}

/** A call that has ended. A process numbers those that it tells of. */
interface ToldCall extends Omit<PlaceEnd, "tokens">, Owned {
  readonly number: number
  readonly tokens?: number | undefined
}

/** A process, when it last replaced the record, and how many of its calls are under way. */
interface ToldProcess {
  readonly at: number
  readonly count: number
}

/** Times are by the clock of the store. */
interface ToldAnswers {
  readonly ended: ReadonlyArray<ToldCall>
  readonly sent: ReadonlyArray<Omit<SentCall, "isProbe"> & Owned>
  readonly processes: Readonly<Record<string, ToldProcess>>
}

const nothing: ToldAnswers = { ended: [], sent: [], processes: {} }

const told = Read.object<ToldAnswers>({
  ended: Read.list(
    Read.object<ToldCall>({
      by: Read.text,
      ...Read.each(Read.amount, "number", "estimate", "millis"),
      tokens: Read.optional(Read.amount),
      ...Read.each(Read.flag, "isAnswer", "isProbe")
    }),
    maxCalls
  ),
  sent: Read.list(
    Read.object<ToldAnswers["sent"][number]>({ by: Read.text, at: Read.utc, estimate: Read.amount }),
    maxCalls
  ),
  processes: Read.record(Read.object<ToldProcess>({ at: Read.utc, count: Read.amount }))
})

// -----------------------------------------------------------------------------
// The exchange
// -----------------------------------------------------------------------------

/** A record, as this process knows it. */
interface KnownRecord {
  readonly pool: string
  version: string | undefined
  told: ToldAnswers
  /** The calls that have ended and are in no record yet, and those under way that the last record of this process has. */
  news: Array<ToldCall>
  shown: ReadonlyArray<SentCall>
  /** Of each process, the number of the last call that was learned from. */
  readonly learned: Map<string, number>
  /** By this process's clock: when the last exchange began. */
  at: number
  phase: "idle" | "due" | "running"
  /** Whether something has happened since it began. */
  isChanged: boolean
}

export class PlaceAnswers implements PlaceExchange {
  private readonly options: AnswersOptions
  private readonly sharing: StoreSettings
  private readonly time: Time
  private readonly known = new Map<string, KnownRecord>()
  private count = 0

  constructor(options: AnswersOptions, sharing: StoreSettings) {
    this.options = options
    this.sharing = sharing
    this.time = new Time(options.clock)
  }

  readonly weighed = (pool: string): void => {
    const known = this.known.get(pool) ?? {
      pool,
      version: undefined,
      told: nothing,
      news: [],
      shown: [],
      learned: new Map<string, number>(),
      at: -Infinity,
      phase: "idle",
      isChanged: false
    }
    Lru.put(this.known, pool, known, maxPools)
    this.soon(known)
  }

  readonly changed = (pool: string): void => {
    const known = this.known.get(pool)
    if (known !== undefined) this.soon(known)
  }

  readonly ended = (pool: string, call: PlaceEnd): void => {
    const known = this.known.get(pool)
    if (known === undefined) return
    known.news.push({ ...call, by: this.options.id, number: ++this.count })
    if (known.news.length > maxCalls) known.news.shift()
    this.soon(known)
  }

  /** Exchanges now, or a second after the last time. */
  private soon(known: KnownRecord): void {
    known.isChanged = true
    if (known.phase !== "idle") return
    known.phase = "due"
    const exchanged = Effect.suspend(() => {
      Object.assign(known, { at: this.time.own, phase: "running", isChanged: false })
      // The pool's own state reports a store that cannot be reached.
      return Effect.ignoreCause(this.exchange(known, 0))
    })
    const done = Effect.sync(() => {
      known.phase = "idle"
      if (known.isChanged) this.soon(known)
    })
    const wait = Math.max(0, known.at + intervalMillis - this.time.own)
    this.options.fork(Effect.andThen(Effect.delay(exchanged, wait), done))
  }

  private exchange(known: KnownRecord, conflicts: number): Effect.Effect<void, StoreError> {
    const { options, sharing } = this
    const key = `answers:${format}:${known.pool}`
    const sent = Array.from(options.learner.sentTo(known.pool))
    const next = this.next(known, sent)
    const version = `${options.id}:${++this.count}`
    const asked =
      next === undefined
        ? sharing.read(key)
        : sharing.swap(key, known.version, { version, value: JSON.stringify(next) }, keepMillis)
    return Effect.flatMap(Effect.timeoutOption(asked, sharing.timeoutMillis), (reply) => {
      if (reply._tag === "None") return Effect.void
      this.receive(known, reply.value)
      if (known.version === version) known.shown = sent.slice(0, maxCalls)
      const isDone = next === undefined || known.version === version || conflicts === maxConflicts
      return isDone ? Effect.void : this.exchange(known, conflicts + 1)
    })
  }

  /** The record with what is new here; undefined if nothing is. */
  private next({ news, shown, told }: KnownRecord, own: ReadonlyArray<SentCall>): ToldAnswers | undefined {
    const { id } = this.options
    const now = this.time.utc
    const { leaseMillis } = this.sharing
    const before = told.processes[id] ?? { at: -Infinity, count: 0 }
    const isSame = own.length === before.count && own.slice(0, maxCalls).every((call, n) => call === shown[n])
    const isDue = own.length > 0 && now - before.at > leaseMillis / 4
    if (news.length === 0 && isSame && !isDue) return undefined
    const processes: Record<string, ToldProcess> = { [id]: { at: now, count: own.length } }
    for (const by of this.others(told)) processes[by] = told.processes[by]!
    const sent = own.map(({ at, estimate }) => ({ by: id, at: at + this.time.ahead, estimate }))
    const others = told.sent.filter(({ by }) => by !== id && processes[by] !== undefined)
    return {
      ended: [...told.ended, ...news].slice(-maxCalls),
      sent: [...others, ...sent].sort((one, other) => one.at - other.at).slice(0, maxCalls),
      processes
    }
  }

  /** The other processes whose leases are not over. */
  private others({ processes }: ToldAnswers): ReadonlyArray<string> {
    const since = this.time.utc - this.sharing.leaseMillis
    return Object.keys(processes).filter((by) => by !== this.options.id && processes[by]!.at > since)
  }

  /** Learns what other processes have told. */
  private receive(known: KnownRecord, stored: Stored | undefined): void {
    const { learned } = known
    this.time.replied(stored?.utc)
    if (stored?.version !== known.version) {
      known.version = stored?.version
      // A record that no process can have written ends the exchange, and the next one replaces it.
      known.told = stored === undefined ? nothing : told(Read.parsed(stored.value), "record", 0)
    }
    const { ended, processes, sent } = known.told
    const isNew = ({ by, number }: ToldCall): boolean => number > (learned.get(by) ?? 0)
    const news = ended.filter((call) => call.by !== this.options.id && isNew(call))
    for (const { by, number } of ended) learned.set(by, Math.max(number, learned.get(by) ?? 0))
    // The reply to an earlier exchange may have been lost.
    known.news = known.news.filter(isNew)
    const isTold = new Set([...Object.keys(processes), ...ended.map(({ by }) => by)])
    for (const by of learned.keys()) if (!isTold.has(by)) learned.delete(by)
    const others = this.others(known.told)
    this.options.learner.learn(
      known.pool,
      news.map(({ by: _, number: __, tokens, ...call }) => ({ ...call, tokens })),
      {
        count: others.reduce((sum, by) => sum + processes[by]!.count, 0),
        first: sent.flatMap(({ at, by, estimate }) =>
          others.includes(by) ? { at: at - this.time.ahead, estimate, isProbe: false } : []
        )
      },
      this.options.clock.currentTimeMillisUnsafe()
    )
  }
}
