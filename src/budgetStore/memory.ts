/**
 * The buckets of a pool in the memory of this process: the pure steps of the ledger, applied to a `Ref`.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Ref from "effect/Ref"
import type { BudgetStore, Held, Immediate, PoolOptions, PoolStore, Snapshot } from "../BudgetStore.ts"
import * as Ledger from "../internal/ledger.ts"
import { monotonicMillis } from "../internal/monotonic.ts"
import { observe } from "../internal/observe.ts"
import * as Limits from "../Limits.ts"
import { atOnce } from "./atOnce.ts"

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
  const millis = monotonicMillis(yield* Clock.Clock)
  const ref = Ref.makeUnsafe(Ledger.make(options.limits, millis(), options))
  let rules = Ledger.rules(Ref.getUnsafe(ref))
  const cell = ref.ref
  let open = 0
  /** The output that open calls have reserved. */
  let openOutput = 0
  let lastId = 0

  /** Applies a step as of now, and learns the rules that come of it. */
  const step = (f: (ledger: Ledger.Ledger, now: number) => Ledger.Ledger): Effect.Effect<Snapshot> =>
    Ref.modify(ref, (before) => {
      const now = millis()
      const ledger = f(Ledger.advance(before, now), now)
      const learned = Ledger.rules(ledger)
      if (!Limits.sameRules(rules, learned)) rules = learned
      return [{ ledger, now }, ledger]
    })

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

  const steps: Immediate = {
    take: (charge) => {
      const now = millis()
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
      const now = millis()
      cell.current = Ledger.settle(Ledger.advance(cell.current, now), held, used, now)
    }
  }

  const store: PoolStore = {
    rules: () => rules,
    ...atOnce(steps),
    observe: (signal, held) => step((ledger, now) => observe(ledger, signal, answeredBy(held), now)),
    pause: (pause) => step((ledger, now) => Ledger.cool(ledger, pause, now)),
    resize: ({ limits }) => step((ledger, now) => (limits === undefined ? ledger : Ledger.resize(ledger, limits, now))),
    unlearn: (untoldMillis) => step((ledger, now) => Ledger.unlearn(ledger, untoldMillis, now)),
    snapshot: step((ledger) => ledger)
  }
  return store
})

/**
 * The store in the memory of this process.
 *
 * **Example** (what fits is granted, in order)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as BudgetStore from "floodgate/BudgetStore"
 *
 * const limits = { tokens: { total: 100 } }
 * const granted = Effect.gen(function* () {
 *   const pool = yield* BudgetStore.memory.open("a", { limits, concurrency: Infinity, headroom: 0, ramp: undefined })
 *   const ask = { charge: { tokens: 60 }, priority: 0 }
 *   return (yield* pool.take([ask, ask])).granted.length
 * })
 *
 * await Effect.runPromise(Effect.scoped(granted)) // => 1
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const memory: BudgetStore = { open: (_, options) => openInMemory(options) }
