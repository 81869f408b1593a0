/**
 * A budget that counts what each agent of a job uses, and refuses what would pass a cap.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Budget from "../Budget.ts"
import { Uncounted } from "../budget/uncounted.ts"
import * as Counter from "./counter.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"
import { counted as count, thousands } from "../limits/words.ts"

/**
 * Marks a budget that counts for {@link run}. {@link layer} provides it.
 *
 * **Gotchas**
 *
 * Where the compiler says that `Meter` is not assignable to `never`, that layer is missing. It goes between the budget and
 * the client.
 *
 * @category services
 * @since 0.1.0
 */
export class Meter extends Context.Service<Meter, true>()("floodgate/Agents/Meter") {}

/**
 * The cap of an agent, or of its whole job, has too little left for the call. `key` is the agent, and `limit` the cap. It
 * reaches the agent as the `cause` of a `BudgetError` with the reason `Denied`.
 *
 * @category errors
 * @since 0.1.0
 */
export class CapReached extends Schema.TaggedError<CapReached>("floodgate/Agents/CapReached")("CapReached", {
  key: Schema.String,
  cap: Schema.Literals(["agent", "job"]),
  unit: Schema.Literals(["tokens", "calls"]),
  asked: Schema.Finite,
  left: Schema.Finite,
  limit: Schema.Finite
}) {
  /** What was used does not come back. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    const one = this.unit === "calls" ? "call" : "token"
    const whose = this.cap === "job" ? "the job's" : "its"
    return `Agent "${this.key}" asks for ${count(this.asked, one)}, but ${whose} cap of ${count(this.limit, one)} has ${thousands(this.left)} left: raise the cap, or give it less to do`
  }
}

/** What is known of the agent whose code runs. */
export interface Running {
  readonly agent: string
  /** The counters that its reservations also go to: its own and its job's. */
  readonly counters: ReadonlyArray<Counter.Counter>
  /** The weight of its next call, where it is known how much it has to do. */
  readonly weight: (() => number) | undefined
}

/** Undefined outside of a job. */
export const Running = Context.Reference<Running | undefined>("floodgate/Agents/Running", {
  defaultValue: () => undefined
})

/**
 * A budget that also counts what each agent of a job uses, and refuses what would pass a cap.
 *
 * **Example** (Two calls each)
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
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Meter | Budget.TokenBudget, never, Budget.TokenBudget> = Layer.fresh(
  // A constant is built once for a whole program, which may have two budgets.
  Layer.effectContext(
    Effect.map(Budget.TokenBudget, (inner) =>
      Context.make(Meter, true).pipe(Context.add(Budget.TokenBudget, metered(inner)))
    )
  )
)

function metered(inner: Budget.TokenBudget["Service"]): Budget.TokenBudget["Service"] {
  return {
    ...inner,
    reserve: (estimate, options) =>
      Effect.flatMap(Running, (running) =>
        running === undefined
          ? inner.reserve(estimate, options)
          : Effect.uninterruptibleMask((restore) => reserveCounted(inner, running, estimate, options, restore))
      ),
    foresee: (estimate, options) =>
      Effect.flatMap(Running, (running) => {
        if (running === undefined) return inner.foresee(estimate, options)
        const foreseen = Effect.provideContext(inner.foresee(estimate, weighted(running, options)), alreadyCounted)
        const refused = Counter.refusalOf(running.counters, estimate)
        if (refused === undefined) return foreseen
        return Effect.map(foreseen, (each) => ({ ...each, refusal: denied(running, refused) }))
      })
  }
}

/** What the budget below hears of the agent: nothing that it would have to count. */
const alreadyCounted = Context.make(Running, undefined).pipe(Context.add(Uncounted, false))

const weighted = ({ weight }: Running, options: Budget.ReserveOptions | undefined): Budget.ReserveOptions | undefined =>
  weight === undefined || options?.weight !== undefined ? options : { ...options, weight: weight() }

const denied = ({ agent: key }: Running, { _tag, agent, ...cap }: Counter.Refused): Budget.Denied =>
  new Budget.Denied({
    cause: new CapReached({ key: agent ?? key, cap: agent === undefined ? "job" : "agent", ...cap })
  })

/** To be run where nothing interrupts. */
const reserveCounted = Effect.fnUntraced(function* (
  inner: Budget.TokenBudget["Service"],
  running: Running,
  estimate: Limits.Estimate,
  options: Budget.ReserveOptions | undefined,
  restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
) {
  // The weight is read before this call is counted.
  const how = weighted(running, options)
  const share = Counter.take(running.counters, estimate)
  if (share._tag === "Refused") return yield* new Budget.BudgetError({ reason: denied(running, share) })
  const held = yield* restore(Effect.provideContext(inner.reserve(estimate, how), alreadyCounted)).pipe(
    Effect.onError(() => Effect.sync(() => share.settle(Amounts.nothing)))
  )
  // A call whose usage is unknown keeps its estimate, as in the budget.
  yield* Effect.addFinalizer(() => Effect.sync(() => share.settle({})))
  return counted(held, share)
})

/** A reservation whose end also updates the counters. */
const counted = (held: Budget.Reservation, share: Counter.Taken): Budget.Reservation => {
  const ends = <A>(usage: Limits.Usage, end: Effect.Effect<A>): Effect.Effect<A> =>
    Effect.andThen(
      Effect.sync(() => share.settle(usage)),
      end
    )
  return {
    ...held,
    observe: (said) => (said.usage === undefined ? held.observe(said) : ends(said.usage, held.observe(said))),
    settle: (usage, outcome) => ends(usage, held.settle(usage, outcome)),
    fail: (failure) => ends(failure.usage ?? Amounts.nothing, held.fail(failure)),
    refund: ends(Amounts.nothing, held.refund)
  }
}
