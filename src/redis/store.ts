/**
 * The Redis store of one pool: the contract's operations as jobs on the pool's line, and what happens without Redis.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberHandle from "effect/FiberHandle"
import type { RedisError } from "effect/persistence/Redis"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { inBatches } from "../BudgetStore.ts"
import type { Ask, Held, Pause, PoolOptions, PoolStore, Snapshot, StoreUnavailable, Taken } from "../BudgetStore.ts"
import * as Ledger from "../internal/ledger.ts"
import { monotonicMillis } from "../internal/monotonic.ts"
import * as Limits from "../Limits.ts"
import { Holdings } from "./holdings.ts"
import * as Line from "./line.ts"
import { LocalShare } from "./localShare.ts"
import type { Job } from "./outbox.ts"
import * as Wire from "./wire.ts"

export interface Settings {
  readonly whenAway: "fail" | "wait" | "degrade"
  readonly patienceMillis: number
  readonly leaseMillis: number
  readonly timeoutMillis: number
}

/** What a provider has said matters to the others for so long; a pause till its end, if that is later. */
const observationLastsMillis = 5_000

// -----------------------------------------------------------------------------
// What is said
// -----------------------------------------------------------------------------

/** Something to say whose reply nobody waits for. */
const say = (operation: () => Wire.Operation | undefined, more: Partial<Job> = {}): Job => ({
  operation,
  replied: () => {},
  away: () => false,
  ...more
})

/** Something to say whose reply somebody waits for: the first answer counts, from Redis or from here. Who is interrupted waits no more. */
const question = <A>(
  line: Line.Line,
  operation: Wire.Operation,
  {
    away,
    replied,
    unheard = () => {}
  }: {
    readonly replied: (reply: unknown, now: number) => A
    /** The answer while Redis is away; `undefined` for none yet. */
    readonly away: (error: StoreUnavailable, lapsed: boolean) => Effect.Effect<A, StoreUnavailable> | undefined
    /** It was executed after all, and nobody waits for it any more. */
    readonly unheard?: (answer: A) => void
  }
): Effect.Effect<A, StoreUnavailable> =>
  Effect.callback<A, StoreUnavailable>((resume) => {
    let isAnswered = false
    const answer = (effect: Effect.Effect<A, StoreUnavailable>): void => {
      isAnswered = true
      resume(effect)
    }
    line.submit({
      operation: () => (isAnswered ? undefined : operation),
      replied: (reply, now) => {
        // A sign of life had its place, since nobody waits for it any more.
        if (isAnswered && reply === 0) return
        const answered = replied(reply, now)
        if (isAnswered) unheard(answered)
        else answer(Effect.succeed(answered))
      },
      away: (error, lapsed) => {
        const answered = isAnswered ? undefined : away(error, lapsed)
        if (answered !== undefined) answer(answered)
        return isAnswered
      }
    })
    return Effect.sync(() => void (isAnswered = true))
  })

// -----------------------------------------------------------------------------
// Whose turn it is
// -----------------------------------------------------------------------------

/** Rings for the pool's queue when its head may come, or something else has changed. */
class Bell {
  private readonly rings: Queue.Queue<void>
  private readonly run: (effect: Effect.Effect<void>) => unknown
  /** The number of the head that waits in Redis, as far as is known. */
  private waiting = 0

  constructor(rings: Queue.Queue<void>, run: Bell["run"]) {
    this.rings = rings
    this.run = run
  }

  get stream(): Stream.Stream<void> {
    return Stream.fromQueue(this.rings)
  }

  waitsFor(head: number): void {
    this.waiting = head
  }

  ring(): void {
    Queue.offerUnsafe(this.rings, undefined)
  }

  readonly ringIn: Line.Wake = (millis, head) => {
    // What was said to an earlier head must not take the place of what the one that waits was told.
    if (head < this.waiting) return
    const ring = () => (head >= this.waiting ? this.ring() : undefined)
    if (millis <= 0) ring()
    else this.run(Effect.andThen(Effect.sleep(millis), Effect.sync(ring)))
  }
}

// -----------------------------------------------------------------------------
// The pool
// -----------------------------------------------------------------------------

class RedisPool {
  private readonly line: Line.Line
  private readonly bell: Bell
  private readonly millis: () => number
  private readonly holdings = new Holdings()
  private readonly given: PoolOptions
  /** What this process goes by while Redis is away, where it was told to. */
  private share: LocalShare | undefined
  /** How often it asked in Redis: a later question has the place of an earlier one. */
  private asked = 0
  /** Questions that have no answer yet. */
  private open = 0

  constructor(line: Line.Line, bell: Bell, given: PoolOptions, millis: () => number) {
    this.line = line
    this.bell = bell
    this.given = given
    this.millis = millis
  }

  /** Who this process is, what it holds, and what it remembers of a state that may be lost. */
  introduction(): ReadonlyArray<Wire.Operation> {
    const now = this.millis()
    const { view } = this.line
    return [Wire.open(this.given, view.configuration), Wire.join(this.holdings.list(now), view.remembered(now))]
  }

  /** Redis is away: a process that knows its share goes on with that. */
  degrade(): void {
    const { ahead, configuration, levels, processes, rules } = this.line.view
    if (configuration === undefined) return
    this.share = new LocalShare({ ahead, configuration, levels, processes, rules }, this.holdings, this.millis())
  }

  /** Redis is back: it hears what the share spent and holds. */
  comeBack(): void {
    if (this.share !== undefined) {
      const calls = this.share.holds()
      const report = this.share.report(this.millis())
      this.holdings.depart(calls)
      const arrived = (names: unknown) => {
        for (const job of this.holdings.arrive(calls, names as ReadonlyArray<number>)) this.line.submit(job)
      }
      this.line.submitFirst(say(() => report, { replied: arrived }))
      this.share = undefined
    }
    // Who waited in Redis may have gone meanwhile.
    if (this.open === 0) this.withdraw(this.asked)
    this.bell.ring()
  }

  /** Nobody stands behind the head that a question left in Redis, unless somebody has asked since. */
  private withdraw(number: number): void {
    this.line.submitFirst(say(() => (number === this.asked ? Wire.take([]) : undefined)))
  }

  take(asks: ReadonlyArray<Ask>): Effect.Effect<Taken, StoreUnavailable> {
    return Effect.suspend(() => {
      this.open++
      const answer = this.ask(asks, this.share === undefined ? ++this.asked : this.asked)
      return Effect.ensuring(
        answer,
        Effect.sync(() => this.open--)
      )
    })
  }

  private ask(asks: ReadonlyArray<Ask>, number: number): Effect.Effect<Taken, StoreUnavailable> {
    return question(this.line, Wire.take(asks), {
      replied: (reply, now) => this.granted(asks, reply as Wire.TakeReply, now),
      unheard: ({ blocked, granted }) => {
        if (blocked?._tag === "Wait") this.withdraw(number)
        for (const held of granted) this.settle(held, Limits.used(held.charge, Limits.nothing), false)
      },
      away: (error, lapsed) => {
        const taken = this.share?.take(asks, this.millis(), error)
        if (taken !== undefined) return Effect.succeed(taken)
        return lapsed ? Effect.fail(error) : undefined
      }
    })
  }

  private granted(asks: ReadonlyArray<Ask>, reply: Wire.TakeReply, now: number): Taken {
    const at = this.millis()
    const granted = Wire.toGranted(asks, reply).map((one): Held => ({ ...one, takenAt: now }))
    for (const { charge, id } of granted) this.holdings.add(id, charge, at)
    const blocked = reply[3]
    if (blocked !== 0 && blocked[0] === "wait") this.bell.waitsFor(blocked[3])
    return { granted, blocked: Wire.toBlocked(blocked) }
  }

  settle(held: Held, used: Limits.Charge, succeeded: boolean): void {
    if (this.share?.settle(held, used, this.millis()) === true) return this.bell.ring()
    const release = () => this.holdings.release(held.id)
    const settlement = say(() => Wire.settle(this.holdings.nameOf(held.id), used, succeeded), {
      replied: release,
      dropped: release
    })
    if (this.holdings.settlesLater(held.id, settlement)) return
    // Used as estimated, with no bound on calls in flight: nobody waits for it.
    if (!this.line.view.isTight && Ledger.isAsEstimated(held.charge, used)) this.line.submitLater(settlement)
    else this.line.submit(settlement)
  }

  /** While no limit is known it waits for what this teaches: till then the next call would be charged nothing. */
  observe(signal: Limits.Signal, answered: Held | undefined): Effect.Effect<void> {
    return Effect.callback((resume) => {
      const done = (): undefined => void resume(Effect.void)
      if (this.share !== undefined) return done()
      const at = this.millis()
      const isOld = () => this.millis() - at > observationLastsMillis
      const operation = () => (isOld() ? done() : Wire.observe(signal, answered))
      this.line.submit(say(operation, { replied: done, away: () => (done(), false) }))
      if (Object.keys(this.line.view.rules).length > 0) done()
    })
  }

  pause(pause: Pause): void {
    const at = this.millis()
    this.share?.pause(pause, at)
    // In a long outage there may be no end of them.
    const isPast = () => this.millis() - at > Math.max(pause.millis, observationLastsMillis)
    const operation = () => (isPast() ? undefined : Wire.pause(pause, this.millis() - at))
    this.line.submit(say(operation, { away: isPast }))
  }

  resize({ concurrency, limits }: Parameters<PoolStore["resize"]>[0]): void {
    // This process uses the new limits at once; what Redis makes of them comes with the reply.
    if (limits !== undefined) this.line.view.resize(limits)
    this.line.submit(say(() => Wire.resize(limits, concurrency)))
  }

  unlearn(untoldMillis: number): Effect.Effect<void, StoreUnavailable> {
    return question(this.line, ["unlearn", untoldMillis], {
      replied: () => undefined,
      // What the pool is configured to is not known to the share: nobody goes back to that.
      away: (error) => (this.share === undefined ? Effect.fail(error) : Effect.void)
    })
  }

  get snapshot(): Effect.Effect<Snapshot, StoreUnavailable> {
    return question(this.line, ["snapshot"], {
      replied: (reply, now) => Wire.toSnapshot(reply as Wire.SnapshotReply, now),
      away: (error) =>
        this.share === undefined ? Effect.fail(error) : Effect.succeed(this.share.snapshot(this.millis()))
    })
  }

  /** The first word: the pool is known, and its rules, which others may have learned, are heard. */
  get firstWord(): Effect.Effect<void, StoreUnavailable> {
    return question(this.line, ["beat"], {
      replied: () => undefined,
      away: (error, lapsed) => (lapsed ? Effect.fail(error) : undefined)
    })
  }

  /** Gives a sign of life where nothing else has done so for so long. */
  beat(millis: number): void {
    if (this.line.isAway || this.millis() - this.line.view.at < millis) return
    this.line.submit(say(() => ["beat"]))
  }
}

const opened = Effect.fnUntraced(function* (
  pool: string,
  options: PoolOptions,
  settings: Settings,
  send: (request: string) => Effect.Effect<string, RedisError>,
  onWake: (wake: Line.Wake) => Effect.Effect<void, never, Scope.Scope>
): Effect.fn.Return<PoolStore, StoreUnavailable, Scope.Scope> {
  const { leaseMillis, patienceMillis, timeoutMillis, whenAway } = settings
  const millis = monotonicMillis(yield* Clock.Clock)
  const bell = new Bell(yield* Queue.sliding<void>(1), yield* FiberHandle.makeRuntime<never>())
  const line = yield* Line.open({
    pool,
    millis,
    send,
    timeoutMillis,
    patienceMillis: whenAway === "wait" ? patienceMillis : 0,
    introduce: () => self.introduction(),
    onAway: () => (whenAway === "degrade" ? self.degrade() : undefined),
    onBack: () => self.comeBack(),
    onTurn: bell.ringIn
  })
  const self = new RedisPool(line, bell, options, millis)
  yield* onWake(bell.ringIn)
  yield* self.firstWord
  const beatMillis = leaseMillis / 4
  const beats = Effect.repeat(
    Effect.sync(() => self.beat(beatMillis)),
    Schedule.spaced(beatMillis)
  )
  yield* Effect.forkScoped(beats)
  return {
    rules: () => line.view.rules,
    take: (asks) => self.take(asks),
    settle: (held, used, succeeded) => Effect.sync(() => self.settle(held, used, succeeded)),
    observe: (signal, answered) => self.observe(signal, answered),
    pause: (pause) => Effect.sync(() => self.pause(pause)),
    resize: (change) => Effect.sync(() => self.resize(change)),
    unlearn: (untoldMillis) => self.unlearn(untoldMillis),
    snapshot: self.snapshot,
    drain: inBatches(bell.stream)
  }
})

/**
 * Opens a pool, and leaves nothing behind of one that does not open. `send` runs the script for it; `onWake` is told who
 * hears when its head may come.
 */
export const open = (...of: Parameters<typeof opened>): ReturnType<typeof opened> =>
  Effect.flatMap(Effect.flatMap(Effect.scope, Scope.fork), (scope) =>
    Effect.onError(Scope.provide(opened(...of), scope), (cause) => Scope.close(scope, Exit.failCause(cause)))
  )
