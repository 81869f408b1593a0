/**
 * The record that processes share of the long windows of an account: how much of each is used, how large it is, what they have spent of
 * it, and who tries one that is spent. So no process begins without knowing what another one has learned.
 *
 * It is advice, and no call waits for it: a process puts what is new into the record of the account now and then, and takes over what
 * others have put there. While the store is away, each process goes on with what it knows.
 */
import * as Effect from "effect/Effect"
import { DueTimer } from "./dueTimer.ts"
import { noReply, type StoreError, type StoreSettings, type Stored } from "./models.ts"
import type { PortOptions } from "./port.ts"
import { Damaged } from "./readers.ts"
import * as Time from "./time.ts"
import type { OpenedWindows, ToldWindow, WindowsElsewhere, WindowsOptions } from "./toldWindows.ts"
import { decode, encode, keyOf, nothing, type RecordedWindow, type WindowsRecord } from "./windowsText.ts"

/** The time until what is new is exchanged, and between two exchanges while calls run or wait, in milliseconds. */
const flushMillis = 1_000
const pollMillis = 5_000
/** How long after its last exchange a process counts. */
const liveMillis = 60_000
/** A process tries this much later than the one that has tried last, which then does so before: it may be gone. */
const graceMillis = 15_000
/** A record is kept for a month after its last change: sizes stay what they are. */
const keepMillis = 32 * 86_400_000
const maxConflicts = 4
/** After so many exchanges those are known that have begun at the same time. */
const enough = 2

type Options = WindowsOptions & Pick<PortOptions, "after" | "clock" | "id">

export class SharedWindows implements OpenedWindows {
  private readonly options: Options
  private readonly store: StoreSettings
  private readonly key: string
  private readonly time: Time.Time
  private readonly timer: DueTimer
  private version: string | undefined = undefined
  private known: WindowsRecord = nothing
  private isFirst = true
  private isKnown = false
  private isClosed = false
  private swaps = 0
  /** The exchanges since this process was last idle, and when the last one ended. */
  private turns = 0
  private turnedAt = -Infinity
  /** By window: when this process has heard of it last, the size that it has in the record, and what is published of its spending. */
  private readonly toldAt = new Map<string, number>()
  private readonly sizes = new Map<string, number>()
  private readonly published = new Map<string, number>()
  /** The time that was taken over from another process. */
  private triesAt = 0

  constructor(options: Options, store: StoreSettings) {
    this.options = options
    this.store = store
    this.key = keyOf(options.account)
    this.time = new Time.Time(options.clock)
    this.timer = new DueTimer(this.time, options.after, this.turn, () =>
      !this.isClosed && options.here().isBusy ? this.time.own + pollMillis : Infinity
    )
    this.timer.within(0)
  }

  get isCurrent(): boolean {
    return this.turns >= enough && this.time.own - this.turnedAt < liveMillis
  }

  changed(): void {
    const isStale = this.time.own - this.turnedAt >= liveMillis
    if (isStale) this.turns = 0
    this.timer.within(isStale ? 0 : flushMillis)
  }

  told(name: string): void {
    this.toldAt.set(name, this.time.utc)
    this.changed()
  }

  private readonly turn: Effect.Effect<void> = Effect.suspend(() => {
    if (this.isClosed) return Effect.void
    const exchange = this.isKnown
      ? this.commit(0)
      : Effect.flatMap(this.inTime(this.store.read(this.key)), (stored) => {
          this.receive(stored)
          return this.commit(0)
        })
    // The pools of the process report a store that is away.
    const attempted = Effect.catchCause(exchange, () => Effect.sync(() => void (this.isKnown = false)))
    const { spent } = this.options.here()
    return Effect.map(attempted, () => this.turned(spent))
  })

  private turned(spent: number): void {
    this.turnedAt = this.time.own
    this.turns++
    if (this.turns < enough) this.timer.within(flushMillis)
    this.options.exchanged(spent)
  }

  private commit(conflicts: number): Effect.Effect<void, StoreError> {
    const { options, store } = this
    const next = this.isClosed ? undefined : this.next()
    if (next === undefined) return Effect.void
    const version = `${options.id}.${++this.swaps}`
    const swap = store.swap(this.key, this.version, { version, value: encode(next.record) }, keepMillis)
    return Effect.flatMap(this.inTime(swap), (stored) => {
      if (stored?.version === version) {
        this.version = version
        this.known = next.record
        this.time.replied(stored.utc)
        for (const [name, spent] of next.spent) this.published.set(name, spent)
        for (const [name, { size }] of Object.entries(next.record.windows)) this.keepSize(name, size)
        return Effect.void
      }
      this.receive(stored)
      return conflicts < maxConflicts ? this.commit(conflicts + 1) : Effect.void
    })
  }

  private inTime<A>(call: Effect.Effect<A, StoreError>): Effect.Effect<A, StoreError> {
    return Effect.timeoutOrElse(call, {
      duration: this.store.timeoutMillis,
      orElse: () => Effect.fail(noReply)
    })
  }

  private keepSize(name: string, size: number | undefined): void {
    if (size !== undefined) this.sizes.set(name, size)
  }

  // ---------------------------------------------------------------------------
  // What is exchanged
  // ---------------------------------------------------------------------------

  /** The record with what is known here; undefined if that adds nothing. */
  private next(): { readonly record: WindowsRecord; readonly spent: ReadonlyMap<string, number> } | undefined {
    const { known, time } = this
    const { isBusy, triesAt, windows: here } = this.options.here()
    if (here.size === 0) return undefined
    const windows = { ...known.windows }
    const spent = { ...known.spent }
    let isNews = isBusy
    for (const [name, window] of here) {
      const more = window.spent - (this.published.get(name) ?? 0)
      if (more > 0) spent[name] = (own(spent, name) ?? 0) + more
      const found = own(windows, name)
      const next = this.newer(name, window, found)
      if (next !== undefined) windows[name] = next
      isNews ||= more > 0 || next !== found
    }
    const tries = this.triedHere(triesAt)
    if (!isNews && tries === known.tries) return undefined
    const live = Object.entries(known.processes).filter(([, at]) => this.isLive(at))
    const processes = { ...Object.fromEntries(live), [this.options.id]: time.utc }
    const record = { windows, spent, tries, processes }
    return { record, spent: new Map(Array.from(here, ([name, window]) => [name, window.spent])) }
  }

  /** A window as it is known here, or as the record has it, whichever was told later; and the size that was learned last. */
  private newer(name: string, here: ToldWindow, found: RecordedWindow | undefined): RecordedWindow | undefined {
    const at = this.toldAt.get(name) ?? 0
    const isMeasured = here.size !== undefined && here.size !== this.sizes.get(name)
    const size = isMeasured ? here.size : found?.size
    const { isRejected, models, resetsAt, used } = here
    if (resetsAt < Infinity && at > (found?.at ?? -1)) return { isRejected, models, resetsAt, used, size, at }
    return found === undefined || size === found.size ? found : { ...found, size }
  }

  /** Who tries next: this process, if it has tried last. */
  private triedHere(triesAt: number): WindowsRecord["tries"] {
    const { tries } = this.known
    const at = triesAt + this.time.ahead
    if (triesAt === 0 || triesAt === this.triesAt || (tries !== undefined && at <= tries.at)) return tries
    return { at, by: this.options.id }
  }

  /** Takes over a record that another process has put there, or that is read for the first time. */
  private receive(stored: Stored | undefined): void {
    const { isFirst } = this
    this.time.replied(stored?.utc)
    this.isFirst = false
    this.isKnown = true
    const found = this.read(stored)
    if (found === undefined) return
    const before = this.known
    const spent = new Map<string, number>()
    for (const [name, amount] of Object.entries(found.spent)) {
      const more = amount - (own(before.spent, name) ?? 0)
      if (more > 0 && !isFirst) spent.set(name, more)
    }
    this.known = found
    const { processes, tries } = found
    this.triesAt = tries === undefined || tries.by === this.options.id ? 0 : tries.at + graceMillis - this.time.ahead
    const live = Object.entries(processes).filter(([id, at]) => id !== this.options.id && this.isLive(at))
    this.options.adopt({ ...this.newIn(found), spent, processes: live.length + 1, triesAt: this.triesAt })
  }

  private isLive(at: number): boolean {
    return at > this.time.utc - liveMillis
  }

  /** The windows and sizes in a record that this process does not know. */
  private newIn({ windows }: WindowsRecord): Pick<WindowsElsewhere, "sizes" | "told"> {
    const told = new Map<string, ToldWindow>()
    const sizes = new Map<string, number>()
    for (const [name, { at, size, ...window }] of Object.entries(windows)) {
      if (size !== undefined && size !== this.sizes.get(name)) sizes.set(name, size)
      this.keepSize(name, size)
      if (at <= (this.toldAt.get(name) ?? -1)) continue
      this.toldAt.set(name, at)
      told.set(name, { ...window, size })
    }
    return { told, sizes }
  }

  /** A record that is damaged is replaced. One of a later version ends the exchange. */
  private read(stored: Stored | undefined): WindowsRecord | undefined {
    this.version = stored?.version
    if (stored === undefined) return nothing
    try {
      return decode(stored.value)
    } catch (error) {
      if (error instanceof Damaged) return nothing
      this.isClosed = true
      return undefined
    }
  }
}

const own = <A>(all: Readonly<Record<string, A>>, name: string): A | undefined =>
  Object.hasOwn(all, name) ? all[name] : undefined
