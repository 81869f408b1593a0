/** A layer over a budget that counts what each agent reserves, and refuses what exceeds a cap. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Ask } from "../budget/asking.ts"
import { Entry, type EntryWatcher } from "../budget/entry.ts"
import { claimed, type GovernedOptions } from "../budget/models.ts"
import type { Claim } from "../line/hold.ts"
import { Uncounted } from "../budget/options.ts"
import * as Budget from "../Budget.ts"
import * as Amounts from "../domain/amounts.ts"
import * as SyncForm from "../domain/syncForm.ts"
import type * as Limits from "../Limits.ts"
import * as Counter from "./counter.ts"
import { AgentHistory, History } from "../call/history.ts"
import { CapReached } from "./models.ts"

/**
 * Marks a budget that counts the calls of agents, which `Agents.run` needs. {@link layer} provides it.
 *
 * **Gotchas**
 *
 * If the compiler reports that `Meter` is not assignable to `never`, that layer is missing. It goes between the budget and the client.
 *
 * @stability stable
 * @category services
 * @since 0.1.0
 */
export class Meter extends Context.Service<Meter, true>()("floodgate/Agents/Meter") {}

/** Counts the calls of one agent, or of a whole job. */
export interface Tracker {
  /** The agent; undefined for a job. */
  readonly agent: string | undefined
  readonly cap: Counter.CounterCap
  readonly changed: () => void
  used: Counter.Counter
  /** The usage of the calls that have ended, which only grows. */
  ended: Counter.Counter
}

/** The agent whose code runs. */
export interface CurrentAgent {
  readonly key: string
  /** The trackers of the agent, of its job, and of the agents that started the job. */
  readonly trackers: ReadonlyArray<Tracker>
  /** The weight of its next call, if its work is stated. */
  readonly weight: (() => number) | undefined
}

/** Undefined outside of a job. */
export const CurrentAgent = Context.Reference<CurrentAgent | undefined>("floodgate/Agents/CurrentAgent", {
  defaultValue: () => undefined
})

/** The budget that counts, for jobs in programs that only see their client. */
export const CountingBudget = Context.Reference<Budget.TokenBudget["Service"] | undefined>(
  "floodgate/Agents/CountingBudget",
  { defaultValue: () => undefined }
)

/**
 * A budget that also counts the usage of each agent of a job, and refuses calls that would exceed a cap.
 *
 * **Example** (A cap of two calls per agent)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Agents from "floodgate/Agents"
 * import * as Budget from "floodgate/Budget"
 *
 * const call = Budget.withReservation({ inputTokens: 100 }, () => Effect.succeed("answer"))
 * const agent = (key: string) => ({ key, effect: Effect.replicateEffect(call, 3) })
 *
 * const outcomes = Agents.run([agent("one"), agent("two")], { capPerAgent: { calls: 2 } }).pipe(
 *   Effect.provide(Agents.layer.pipe(Layer.provide(Budget.layer())))
 * )
 *
 * const [one] = await Effect.runPromise(outcomes)
 *
 * one?.exit._tag // => "Failure"
 * one?.used.calls // => 2
 * ```
 *
 * @stability stable
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Meter | Budget.TokenBudget, never, Budget.TokenBudget> = Layer.fresh(
  // A new layer for each call of this function, because a program may have two budgets and a constant layer is built only once.
  Layer.effectContext(
    Effect.map(Budget.TokenBudget, (inner) => {
      const history = new AgentHistory()
      const budget = counting(inner, history)
      return Context.make(Meter, true).pipe(
        Context.add(Budget.TokenBudget, budget),
        Context.add(CountingBudget, budget),
        Context.add(History, history)
      )
    })
  )
)

const counting = (inner: Budget.TokenBudget["Service"], history: AgentHistory): Budget.TokenBudget["Service"] => {
  const ask = SyncForm.of<Ask>(inner.reserve)
  const reserve: Budget.TokenBudget["Service"]["reserve"] = (estimate, options) =>
    Effect.withFiber(({ context }) => {
      const current = Context.get(context, CurrentAgent)
      if (current === undefined) {
        const clock = Context.get(context, Clock.Clock)
        const askedAt = clock.currentTimeMillisUnsafe()
        return Effect.map(inner.reserve(estimate, options), (held) =>
          remembered(held, estimate, history, { clock, askedAt })
        )
      }
      return Effect.uninterruptibleMask((restore) =>
        reserveCounted({ inner, history }, current, estimate, options, restore)
      )
    })
  return {
    ...inner,
    reserve: ask === undefined ? reserve : SyncForm.attach(reserve, asking(ask, history)),
    foresee: (estimate, options) =>
      Effect.flatMap(CurrentAgent, (current) => {
        if (current === undefined) return inner.foresee(estimate, options)
        const foreseen = Effect.provideContext(inner.foresee(estimate, weighted(current, options)), alreadyCounted)
        const refusal = refusalOf(current, Counter.estimated(estimate))
        return refusal === undefined ? foreseen : Effect.map(foreseen, (each) => ({ ...each, refusal }))
      })
  }
}

/** Asks without Effect for calls that no job makes, and remembers what they used. */
const asking = (ask: Ask, history: AgentHistory): Ask =>
  Object.assign<Ask, Pick<Ask, "isFor">>(
    (context, estimate, options) => {
      const clock = Context.get(context, Clock.Clock)
      const askedAt = clock.currentTimeMillisUnsafe()
      const asked = ask(context, estimate, options)
      if (asked instanceof Entry) {
        const { agent, pool } = asked
        asked.watcher = watching({ agent, pool: pool.name }, estimate, history, { clock, askedAt })
      }
      return asked
    },
    { isFor: (context) => Context.get(context, CurrentAgent) === undefined }
  )

/** The time when an agent asked for a call, and the clock that times the call. */
interface Timing {
  readonly clock: Clock.Clock
  readonly askedAt: number
}

/** Remembers the usage of a call, once, if it succeeds. */
const watching = (
  { agent, pool }: Pick<Budget.Reservation, "agent" | "pool">,
  estimate: Limits.Estimate,
  history: AgentHistory,
  { askedAt, clock }: Timing
): EntryWatcher => {
  let began = 0
  let isOpen = true
  return {
    began: () => {
      began = clock.currentTimeMillisUnsafe()
    },
    used: (usage) => {
      if (!isOpen) return
      isOpen = false
      const now = clock.currentTimeMillisUnsafe()
      history.called(pool, agent, Amounts.used(Amounts.whole(estimate), usage, estimate), now - began, now, askedAt)
    }
  }
}

/** Keeps a counting budget below this one from counting the call again, and a plain one from reporting it as uncounted. */
const alreadyCounted = Context.make(CurrentAgent, undefined).pipe(Context.add(Uncounted, false))

const weighted = (
  { weight }: CurrentAgent,
  options: Budget.ReserveOptions | undefined
): Budget.ReserveOptions | undefined =>
  weight === undefined || options?.weight !== undefined ? options : { ...options, weight: weight() }

/** The refusal of a call that exceeds the cap of its agent or of a job. */
const refusalOf = ({ key, trackers }: CurrentAgent, asked: Counter.Counter): Budget.Denied | undefined => {
  for (const { agent, cap, used } of trackers) {
    const excess = Counter.excess(used, cap, asked)
    if (excess === undefined) continue
    return new Budget.Denied({
      cause: new CapReached({ key: agent ?? key, cap: agent === undefined ? "job" : "agent", ...excess })
    })
  }
  return undefined
}

/** A call that is tracked. If it waits in several pools, its reservations count once. */
interface TrackedCall {
  readonly settle: (usage: Limits.Usage) => void
  /** The reservations that were not given up. */
  reservations: number
}

const byClaim = new WeakMap<Claim, TrackedCall>()

/** Reserves and counts; it must run uninterruptibly. */
const reserveCounted = Effect.fnUntraced(function* (
  { history, inner }: { readonly inner: Budget.TokenBudget["Service"]; readonly history: AgentHistory },
  current: CurrentAgent,
  estimate: Limits.Estimate,
  options: Budget.ReserveOptions | undefined,
  restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
) {
  // The weight is computed before this call is counted.
  const reserveOptions = weighted(current, options)
  const asked = Counter.estimated(estimate)
  const claim = (options as GovernedOptions | undefined)?.[claimed]
  const known = claim && byClaim.get(claim)
  const refusal = known === undefined ? refusalOf(current, asked) : undefined
  if (refusal !== undefined) return yield* new Budget.BudgetError({ reason: refusal })
  const clock = yield* Clock.Clock
  const askedAt = clock.currentTimeMillisUnsafe()
  const call = known ?? { settle: track(current.trackers, asked, estimate), reservations: 0 }
  if (claim !== undefined) byClaim.set(claim, call)
  const { settle } = call
  call.reservations++
  const reservation = yield* restore(
    Effect.provideContext(inner.reserve(estimate, reserveOptions), alreadyCounted)
  ).pipe(
    Effect.onError(() =>
      Effect.sync(() => {
        if (--call.reservations === 0) settle(Amounts.nothing)
      })
    )
  )
  // A call whose usage is unknown keeps its estimate, as in the budget.
  yield* Effect.addFinalizer(() => Effect.sync(() => settle({})))
  return tracked(remembered(reservation, estimate, history, { clock, askedAt }), settle)
})

/** A reservation whose usage is remembered, if its call succeeds. */
const remembered = (
  held: Budget.Reservation,
  estimate: Limits.Estimate,
  history: AgentHistory,
  timing: Timing
): Budget.Reservation => {
  const { began, used } = watching(held, estimate, history, timing)
  began()
  return {
    ...held,
    observe: (signal) =>
      Effect.suspend(() => {
        if (signal.usage !== undefined) used(signal.usage)
        return held.observe(signal)
      }),
    settle: (usage, outcome) =>
      Effect.suspend(() => {
        if (outcome === undefined || outcome === "success") used(usage)
        return held.settle(usage, outcome)
      })
  }
}

/** Counts a call as estimated. The result replaces that by its usage, and only the first usage counts. */
const track = (
  trackers: ReadonlyArray<Tracker>,
  asked: Counter.Counter,
  estimate: Limits.Estimate
): ((usage: Limits.Usage) => void) => {
  const replace = (before: Counter.Counter, after: Counter.Counter): void => {
    for (const tracker of trackers) {
      tracker.used = Counter.replace(tracker.used, before, after)
      tracker.changed()
    }
  }
  replace(Counter.zero, asked)
  let isOpen = true
  return (usage) => {
    if (!isOpen) return
    isOpen = false
    const actual = Counter.actual(asked, usage, estimate)
    for (const tracker of trackers) tracker.ended = Counter.replace(tracker.ended, Counter.zero, actual)
    replace(asked, actual)
  }
}

/** A reservation that also settles what was counted for it. */
const tracked = (reservation: Budget.Reservation, settle: (usage: Limits.Usage) => void): Budget.Reservation => {
  const settling = <A>(usage: Limits.Usage, end: Effect.Effect<A>): Effect.Effect<A> =>
    Effect.andThen(
      Effect.sync(() => settle(usage)),
      end
    )
  return {
    ...reservation,
    observe: (signal) => {
      const observed = reservation.observe(signal)
      return signal.usage === undefined ? observed : settling(signal.usage, observed)
    },
    settle: (usage, outcome) => settling(usage, reservation.settle(usage, outcome)),
    fail: (failure) => settling(failure.usage ?? Amounts.nothing, reservation.fail(failure)),
    refund: settling(Amounts.nothing, reservation.refund)
  }
}
