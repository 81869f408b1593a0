/**
 * Where a budget keeps its buckets: the memory of this process, or a store that many processes share.
 *
 * The queue of waiters and the semaphore belong to a process; the levels, cooldowns and learned limits belong to a
 * store. A store applies the steps of one pool atomically and reads its own clock, so that processes need not agree on
 * the time. `floodgate/testing` exports the contract suite that every store must pass.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Ref from "effect/Ref"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Ledger from "./internal/ledger.ts"
import type * as Limits from "./Limits.ts"

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/**
 * What a store holds for one admitted call. `id` counts up in the order of admission.
 *
 * @category models
 * @since 0.1.0
 */
export type Held = Ledger.Held

/**
 * Why a charge is not admitted now: it must wait `millis` for `dimension` (`undefined`: for the end of a cooldown or
 * for a change elsewhere), or a quota has too little left.
 *
 * @category models
 * @since 0.1.0
 */
export type Blocked = Exclude<Ledger.Decision, { readonly _tag: "Granted" }>

/**
 * One call that asks to be admitted. Higher priority goes first.
 *
 * @category models
 * @since 0.1.0
 */
export interface Ask {
  readonly charge: Limits.Charge
  readonly priority: number
}

/**
 * The answer to `take`: what was granted, in order, and what blocks the first that was not.
 *
 * @category models
 * @since 0.1.0
 */
export interface Taken {
  readonly granted: ReadonlyArray<Held>
  readonly blocked: Blocked | undefined
}

/**
 * Why a pool pauses.
 *
 * @category models
 * @since 0.1.0
 */
export type PauseReason = Ledger.PauseReason

/**
 * A pause of a whole pool. `charge` is what the rejected call had reserved; with it the store can tell whether the local
 * view explains the rejection.
 *
 * @category models
 * @since 0.1.0
 */
export interface Pause {
  readonly reason: PauseReason
  readonly millis: number
  readonly charge: Limits.Charge | undefined
}

/**
 * A pool as its store sees it. Times are milliseconds of the store's clock; `now` is the moment of the snapshot.
 *
 * @category models
 * @since 0.1.0
 */
export interface Snapshot {
  readonly ledger: Ledger.Ledger
  readonly now: number
}

/**
 * What a pool is opened with.
 *
 * @category options
 * @since 0.1.0
 */
export interface PoolOptions {
  readonly limits: Limits.Limits
  /** Calls in flight at once, in all processes together; `Infinity` where nothing bounds them. */
  readonly concurrency: number
  /** The part of each burst that is kept back. */
  readonly headroom: number
  /** A slow start of the rates, from a part of them to the whole. */
  readonly ramp: { readonly from: number; readonly millis: number } | undefined
}

/**
 * A store that cannot be reached, or whose state cannot be read.
 *
 * @category errors
 * @since 0.1.0
 */
export class StoreUnavailable extends Schema.TaggedError<StoreUnavailable>("floodgate/BudgetStore/StoreUnavailable")(
  "StoreUnavailable",
  { pool: Schema.String, cause: Schema.Defect() }
) {
  /** The store may be back at the next attempt. */
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    return `The budget's store did not answer for pool "${this.pool}": check that it is reachable, or choose what happens when it is away`
  }
}

/**
 * The buckets of one pool.
 *
 * @category models
 * @since 0.1.0
 */
export interface PoolStore {
  /** Whether steps take no time: then they run in the fiber that causes them. */
  readonly local: boolean
  /** The most calls worth sending in one `take`. */
  readonly batch: number
  /** The rules as last heard: they may have been learned or changed, by another process too. */
  readonly rules: () => Limits.Rules
  /**
   * Admits the longest prefix of the calls that fits now, each in all its dimensions or not at all. The first that does
   * not fit then waits at the store, where it has its place among the heads of other processes, until the next `take`;
   * one of no calls says that nobody waits here any more.
   */
  readonly take: (asks: ReadonlyArray<Ask>) => Effect.Effect<Taken, StoreUnavailable>
  /** Replaces what was held by what was used. A call that succeeded lets a probed pool grow. */
  readonly settle: (held: Held, used: Limits.Charge, succeeded: boolean) => Effect.Effect<void, StoreUnavailable>
  /** Moves the view toward the provider's. */
  readonly observe: (signal: Limits.Signal, answered: Held | undefined) => Effect.Effect<void, StoreUnavailable>
  readonly pause: (pause: Pause) => Effect.Effect<void, StoreUnavailable>
  /** Changes what is given, for all processes. */
  readonly resize: (change: {
    readonly limits: Limits.Limits | undefined
    readonly concurrency: number | undefined
  }) => Effect.Effect<void, StoreUnavailable>
  readonly snapshot: Effect.Effect<Snapshot, StoreUnavailable>
  /** Emits when something changed that this process did not cause. */
  readonly wakes: Stream.Stream<void>
}

// -----------------------------------------------------------------------------
// Service
// -----------------------------------------------------------------------------

/**
 * The store of a budget's buckets. Without a layer it is the memory of this process.
 *
 * @category services
 * @since 0.1.0
 */
export const BudgetStore = Context.Reference<BudgetStore>("floodgate/BudgetStore/BudgetStore", {
  defaultValue: () => memory
})

/**
 * Opens pools. The scope is the budget's: a pool closes with it.
 *
 * @category models
 * @since 0.1.0
 */
export interface BudgetStore {
  readonly open: (pool: string, options: PoolOptions) => Effect.Effect<PoolStore, StoreUnavailable, Scope.Scope>
}

// -----------------------------------------------------------------------------
// Memory
// -----------------------------------------------------------------------------

const openInMemory = Effect.fnUntraced(function* (options: PoolOptions) {
  const clock = yield* Clock.Clock
  const monotonicMillis = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  const ref = Ref.makeUnsafe(Ledger.make(options.limits, monotonicMillis(), options))
  let rules = Ledger.rules(Ref.getUnsafe(ref))
  const open = new Map<number, Held>()
  let lastId = 0

  const step = <A>(f: (ledger: Ledger.Ledger, now: number) => readonly [A, Ledger.Ledger]): Effect.Effect<A> =>
    Ref.modify(ref, (ledger) => {
      const now = monotonicMillis()
      return f(Ledger.advance(ledger, now), now)
    })

  const uncounted = (answered: Held | undefined): Limits.Charge => {
    const sum = { requests: 0, inputTokens: 0, outputTokens: 0, tokens: 0 }
    for (const held of open.values()) {
      const isLater = answered !== undefined && held.id > answered.id
      sum.outputTokens += held.charge.outputTokens ?? 0
      if (!isLater) continue
      sum.requests += held.charge.requests ?? 0
      sum.inputTokens += held.charge.inputTokens ?? 0
      sum.tokens += held.charge.tokens ?? 0
    }
    return sum
  }

  const store: PoolStore = {
    local: true,
    batch: 1,
    rules: () => rules,
    take: (asks) =>
      step<Taken>((ledger, now) => {
        const granted: Array<Held> = []
        for (const { charge } of asks) {
          const decision = Ledger.decide(ledger, charge, now)
          if (decision._tag !== "Granted") return [{ granted, blocked: decision }, ledger]
          const held: Held = { id: ++lastId, charge, takenAt: now }
          open.set(held.id, held)
          granted.push(held)
          ledger = Ledger.take(ledger, charge, now)
        }
        return [{ granted, blocked: undefined }, ledger]
      }),
    settle: (held, used) =>
      step((ledger, now) => [
        undefined,
        open.delete(held.id) ? Ledger.settle(ledger, held, used, now) : ledger
      ]),
    observe: (signal, answered) =>
      step((ledger, now) => {
        const observed = Ledger.observe(
          ledger,
          signal,
          {
            id: answered?.id ?? lastId,
            uncounted: uncounted(answered),
            idle: answered !== undefined && answered.id === lastId && open.size <= 1
          },
          now
        )
        rules = Ledger.rules(observed)
        return [undefined, observed]
      }),
    pause: (pause) => step((ledger, now) => [undefined, Ledger.cool(ledger, pause, now)]),
    resize: ({ limits }) =>
      step((ledger, now) => {
        const resized = limits === undefined ? ledger : Ledger.resize(ledger, limits, now)
        rules = Ledger.rules(resized)
        return [undefined, resized]
      }),
    snapshot: step((ledger, now) => [{ ledger, now }, ledger]),
    wakes: Stream.never
  }
  return store
})

/**
 * The store in the memory of this process.
 *
 * @category constructors
 * @since 0.1.0
 */
export const memory: BudgetStore = { open: (_, options) => openInMemory(options) }
