/**
 * Caps in dollars on the total cost of calls: over all time, per day, or in any window of time.
 *
 * A {@link Purse} counts the costs of calls. All calls of an effect within {@link from} pay from its purse, whether that effect is
 * an agent, a job or a whole program. With nested purses, a call pays from all of them, or from none.
 *
 * **Details**
 *
 * Before a call is queued, the most that it can cost is reserved: a token for each byte of its prompt, at the price of the most
 * expensive kind of input, and `max_tokens` of output. When the call ends, its actual cost is spent and the rest released. So a cap
 * is never exceeded, however many calls run at once. If the reservation and what was already spent exceed the cap, the call is
 * refused with {@link SpendCapReached}, which says how much is left and when the call would fit. If only the reservations of
 * running calls are in the way, the call waits for them, first come, first served, until its `maxWait` or its deadline.
 *
 * A rejected call costs nothing. An interrupted call costs its input and the output that was received. A call that was answered
 * without usage costs all that was reserved for it. The governor has the prices (`prices` of `Governor.layer`). Under a cap, a call
 * is refused if its model has no price ({@link NoPrice}), or if nothing limits its output ({@link NoMaxTokens}).
 *
 * **Gotchas**
 *
 * Purses belong to a process: two processes with a cap of $10 each may spend $20. Calls through an SDK's middleware do not pay from
 * the purses around them, because their promises belong to no fiber.
 *
 * **Example** (Five dollars a day)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as Governor from "floodgate/Governor"
 * import * as Spending from "floodgate/Spending"
 *
 * const purse = Spending.make("research", { dollars: 5, per: "day" })
 * const call = { model: "claude-sonnet-5", bytes: 4_000, maxTokens: 500 }
 * const actual = { inputTokens: 1_000, outputTokens: 100 }
 *
 * const program = Effect.gen(function* () {
 *   const governor = yield* Governor.Governor
 *   yield* governor.run(call, () => Effect.succeed({ value: "hello", actual })).pipe(Spending.from(purse))
 *   return (yield* purse.status).spent
 * })
 *
 * const live = Governor.layer().pipe(Layer.provide(Budget.layer()))
 *
 * await Effect.runPromise(Effect.provide(program, live)) // => 0.003
 * ```
 *
 * @since 0.2.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { harmless } from "./domain/input/callbacks.ts"
import { anObject, callback, check, options as optionsOf } from "./domain/input/checks.ts"
import { dollars } from "./domain/words.ts"
import type { Kept } from "./domain/spending/ledger.ts"
import { type Cap, check as checkCap, inUnits, type Purse, Purses } from "./domain/spending/models.ts"
import { PurseState } from "./domain/spending/purse.ts"

export type { Kept } from "./domain/spending/ledger.ts"
export type { Cap, Purse } from "./domain/spending/models.ts"
export type { Status } from "./domain/spending/purse.ts"

// -----------------------------------------------------------------------------
// Errors
// -----------------------------------------------------------------------------

/**
 * A cap in dollars has too little left for the call. `purse` is the name of the purse, `asked` the amount to reserve, and `until`
 * when the call would fit, in milliseconds since the epoch. It is the `cause` of a `BudgetError` with the reason `Denied`.
 *
 * @category errors
 * @since 0.2.0
 */
export class SpendCapReached extends Schema.TaggedError<SpendCapReached>("floodgate/Spending/SpendCapReached")(
  "SpendCapReached",
  {
    purse: Schema.String,
    asked: Schema.Finite,
    left: Schema.Finite,
    limit: Schema.Finite,
    /** Such as "a day". */
    per: Schema.optional(Schema.String),
    until: Schema.optional(Schema.Finite)
  }
) {
  /** Whether the call fits later. */
  get isRetryable(): boolean {
    return this.until !== undefined
  }
  override get message(): string {
    const { asked, left, limit, per, purse, until } = this
    const cap = per === undefined ? dollars(limit) : `${dollars(limit)} ${per}`
    const when = until === undefined ? "" : `wait until ${new Date(until).toISOString()}, `
    return `The call may cost ${dollars(asked)}, but only ${dollars(left)} is left of the cap of ${cap} for ${purse}: ${when}lower max_tokens, or raise the cap`
  }
}

/**
 * The call counts towards a cap in dollars, and its model has no price. Add a price, or remove the cap. It is the `cause` of a
 * `BudgetError` with the reason `Denied`.
 *
 * @category errors
 * @since 0.2.0
 */
export class NoPrice extends Schema.TaggedError<NoPrice>("floodgate/Spending/NoPrice")("NoPrice", {
  model: Schema.String,
  purse: Schema.String
}) {
  /** A retry does not help. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `The model "${this.model}" has no price, so the cap for ${this.purse} cannot be enforced: add a price, or call another model`
  }
}

/**
 * The call counts towards a cap in dollars that reserves the most that a call can cost, but neither the request nor the price of
 * the model limits its output. Set `max_tokens`, add `maxOutput` to the price, or set the cap's `reserve` to `"expected"`. It is the
 * `cause` of a `BudgetError` with the reason `Denied`.
 *
 * @category errors
 * @since 0.2.0
 */
export class NoMaxTokens extends Schema.TaggedError<NoMaxTokens>("floodgate/Spending/NoMaxTokens")("NoMaxTokens", {
  purse: Schema.String
}) {
  /** A retry does not help. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `Nothing limits the output of the call, so the cap for ${this.purse} cannot be enforced: set max_tokens, add maxOutput to the price of the model, or set the cap's reserve to "expected"`
  }
}

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

type Options = {
  /** What an earlier purse has spent: its `kept`. @default nothing */
  readonly kept?: Kept | undefined
  /** Called after each change. Its errors are ignored. */
  readonly changed?: (() => void) | undefined
}

const made = optionsOf<Options>({ kept: anObject, changed: callback })

/**
 * Makes a purse. Its refusals contain the name. Without a cap it only counts.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` for an invalid cap.
 *
 * **Example** (A purse that only counts)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Spending from "floodgate/Spending"
 *
 * const purse = Spending.make("research")
 *
 * const { left, spent } = await Effect.runPromise(purse.status)
 *
 * spent // => 0
 * left // => undefined
 * ```
 *
 * @category constructors
 * @since 0.2.0
 */
export const make = (name: string, cap?: Cap, options: Options = {}): Purse => {
  if (cap !== undefined) check("Spending.make", checkCap, cap)
  check("Spending.make", made, options)
  const { changed, kept } = options
  const internals = new PurseState(name, inUnits(cap), kept, changed && harmless(changed))
  return {
    name,
    status: Effect.map(Clock.currentTimeMillis, (now) => internals.status(now)),
    resize: (cap) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        if (cap !== undefined) check("Spending.resize", checkCap, cap)
        internals.resize(inUnits(cap), now)
      }),
    kept: Effect.sync(() => internals.ledger.kept),
    internals
  }
}

// -----------------------------------------------------------------------------
// Paying
// -----------------------------------------------------------------------------

/**
 * Lets the calls of an effect pay from a purse, besides the purses around it.
 *
 * **Example** (A call that a cap has no room for)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as Governor from "floodgate/Governor"
 * import * as Spending from "floodgate/Spending"
 *
 * const purse = Spending.make("demo", { dollars: 0.01 })
 * const call = Effect.flatMap(Governor.Governor, (governor) =>
 *   governor.run({ model: "claude-sonnet-5", bytes: 1_000_000, maxTokens: 1_000 }, () => Effect.succeed({ value: "hello" }))
 * )
 *
 * const live = Governor.layer().pipe(Layer.provide(Budget.layer()))
 * const refused = call.pipe(Spending.from(purse), Effect.provide(live), Effect.flip)
 *
 * const { message } = await Effect.runPromise(refused)
 *
 * message.includes("only $0.01 is left of the cap of $0.01 for demo") // => true
 * ```
 *
 * @category combinators
 * @since 0.2.0
 */
export const from =
  (purse: Purse) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.updateService(self, Purses, (purses) => [...purses, purse])
