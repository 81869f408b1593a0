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
import { observe } from "./internal/observe.ts"
import * as Limits from "./Limits.ts"

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
 * The hottest steps as plain functions, for a store whose steps take no time. Its clock is the monotonic clock of this
 * process: the budget tells from `takenAt` how long a call waited.
 *
 * @category models
 * @since 0.1.0
 */
export interface Immediate {
  /** Admits one charge, or says what blocks it. */
  readonly take: (charge: Limits.Charge) => Held | Blocked
  readonly settle: (held: Held, used: Limits.Charge) => void
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
  /** Only of a local store. */
  readonly immediate?: Immediate | undefined
  /** The most calls worth sending in one `take`. */
  readonly batch: number
  /**
   * The rules as last heard: they may have been learned or changed, by another process too. The same object as long as
   * they are the same.
   */
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

/** What is held here; settled when it is open no more. */
class Open implements Held {
  readonly id: number
  readonly charge: Limits.Charge
  readonly takenAt: number
  isOpen = true
  private readonly ledger: Ledger.Ledger

  constructor(id: number, charge: Limits.Charge, takenAt: number, ledger: Ledger.Ledger) {
    this.id = id
    this.charge = charge
    this.takenAt = takenAt
    this.ledger = ledger
  }
  /** Seldom asked for, so it is not worked out beforehand. */
  get left(): Limits.Charge {
    return Ledger.leftOf(this.ledger)
  }
}

const openInMemory = Effect.fnUntraced(function* (options: PoolOptions) {
  const clock = yield* Clock.Clock
  const monotonicMillis = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  const ref = Ref.makeUnsafe(Ledger.make(options.limits, monotonicMillis(), options))
  let rules = Ledger.rules(Ref.getUnsafe(ref))
  const cell = ref.ref
  let open = 0
  /** The output that open calls have reserved. */
  let openOutput = 0
  let lastId = 0

  const step = <A>(f: (ledger: Ledger.Ledger, now: number) => readonly [A, Ledger.Ledger]): Effect.Effect<A> =>
    Ref.modify(ref, (ledger) => {
      const now = monotonicMillis()
      return f(Ledger.advance(ledger, now), now)
    })

  const learn = (ledger: Ledger.Ledger): void => {
    const learned = Ledger.rules(ledger)
    if (!Limits.sameRules(rules, learned)) rules = learned
  }

  const hold = (ledger: Ledger.Ledger, charge: Limits.Charge, now: number): Held => {
    const held = new Open(++lastId, charge, now, ledger)
    open++
    openOutput += charge.outputTokens ?? 0
    return held
  }

  /** What is held counts once, however often it is settled. */
  const letGo = (held: Held): boolean => {
    if (!(held instanceof Open) || !held.isOpen) return false
    held.isOpen = false
    openOutput = --open === 0 ? 0 : openOutput - (held.charge.outputTokens ?? 0)
    return true
  }

  const answeredBy = (held: Held | undefined): Ledger.Answered => {
    const isOpen = held instanceof Open && held.isOpen
    const output = isOpen ? (held.charge.outputTokens ?? 0) : 0
    return {
      id: held?.id ?? lastId,
      left: held?.left,
      output,
      uncounted: openOutput - output,
      idle: held !== undefined && held.id === lastId && open === (isOpen ? 1 : 0)
    }
  }

  const immediate: Immediate = {
    take: (charge) => {
      const now = monotonicMillis()
      const atOnce = Ledger.takeAtOnce(cell.current, charge, now)
      if (atOnce !== undefined) {
        cell.current = atOnce
        return hold(atOnce, charge, now)
      }
      const ledger = Ledger.advance(cell.current, now)
      const decision = Ledger.decide(ledger, charge, now)
      if (decision._tag !== "Granted") {
        cell.current = ledger
        return decision
      }
      const taken = Ledger.take(ledger, charge, now)
      cell.current = taken
      return hold(taken, charge, now)
    },
    settle: (held, used) => {
      if (!letGo(held) || Ledger.isAsEstimated(held.charge, used)) return
      const now = monotonicMillis()
      cell.current = Ledger.settle(Ledger.advance(cell.current, now), held, used, now)
    }
  }

  const store: PoolStore = {
    local: true,
    immediate,
    batch: 1,
    rules: () => rules,
    take: (asks) =>
      Effect.sync(() => {
        const granted: Array<Held> = []
        let blocked: Blocked | undefined
        for (const { charge } of asks) {
          const answer = immediate.take(charge)
          if ("_tag" in answer) {
            blocked = answer
            break
          }
          granted.push(answer)
        }
        return { granted, blocked }
      }),
    settle: (held, used) => Effect.sync(() => immediate.settle(held, used)),
    observe: (signal, held) =>
      step((ledger, now) => {
        const observed = observe(ledger, signal, answeredBy(held), now)
        learn(observed)
        return [undefined, observed]
      }),
    pause: (pause) => step((ledger, now) => [undefined, Ledger.cool(ledger, pause, now)]),
    resize: ({ limits }) =>
      step((ledger, now) => {
        const resized = limits === undefined ? ledger : Ledger.resize(ledger, limits, now)
        learn(resized)
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
