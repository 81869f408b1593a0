/**
 * Caps in dollars: what some calls may cost together, for ever, per day, or in any window of time.
 *
 * A {@link Purse} counts what the calls of some code cost. Everything within {@link from} pays from its purse: the calls of an
 * agent, of a job, of a whole program. A call pays from all purses around it, or from none.
 *
 * **Details**
 *
 * Before a call is queued, the most that it can cost is held: a token for each byte of its prompt, at the dearest kind of
 * input, and `max_tokens` of output. When it is over, what it used is spent and the rest is free again. So a cap is never passed,
 * however many calls run at once. A call that does not fit beside what was spent is refused with {@link
 * SpendCapReached}, which says what is left and until when. One that would fit if the calls that run cost nothing more
 * waits for them, first come, first served, as long as `maxWait` and the deadline allow.
 *
 * A rejected call costs nothing, one that was interrupted the input and the output that was seen, and one that says nothing of
 * its usage what was expected. Prices are those of the governor (`prices` of `Governor.layer`). A model without a price is
 * refused under a cap.
 *
 * **Gotchas**
 *
 * Purses belong to a process: two processes with a cap of $10 each may spend $20. Calls of an SDK's middleware, whose promises
 * belong to no fiber, do not see the purses around them.
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
import { harmless } from "./input/callbacks.ts"
import { dollars } from "./limits/words.ts"
import { type Cap, keepingOf } from "./spending/cap.ts"
import type { Kept } from "./spending/ledger.ts"
import * as Ledger from "./spending/purse.ts"
import { type Purse, Purses } from "./spending/models.ts"

export type { Cap } from "./spending/cap.ts"
export type { Purse } from "./spending/models.ts"

// -----------------------------------------------------------------------------
// Errors
// -----------------------------------------------------------------------------

/**
 * A cap in dollars has too little left for the call. `purse` says whose it is; `asked` is what the call was counted with, and
 * `until` when it would fit, in milliseconds since the epoch. It is the `cause` of a `BudgetError` with the reason `Denied`.
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
  /** Later there may be money. */
  get isRetryable(): boolean {
    return this.until !== undefined
  }
  override get message(): string {
    const { asked, left, limit, per, purse, until } = this
    const cap = per === undefined ? dollars(limit) : `${dollars(limit)} ${per}`
    const when = until === undefined ? "" : `wait until ${new Date(until).toISOString()}, `
    return `The call may cost ${dollars(asked)}, but the cap of ${purse} of ${cap} has ${dollars(left)} left: ${when}lower max_tokens, or raise the cap`
  }
}

/**
 * The call counts towards a cap in dollars, and nobody knows what its model costs. Give it a price, or leave the cap out.
 * It is the `cause` of a `BudgetError` with the reason `Denied`.
 *
 * @category errors
 * @since 0.2.0
 */
export class NoPrice extends Schema.TaggedError<NoPrice>("floodgate/Spending/NoPrice")("NoPrice", {
  model: Schema.String,
  purse: Schema.String
}) {
  /** It has no price later either. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `The model "${this.model}" has no price, so the cap of ${this.purse} cannot be kept: add it to the prices, or call another model`
  }
}

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

/**
 * Makes a purse. Its name is in refusals; without a cap it only counts.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` for a cap that makes no sense.
 *
 * @category constructors
 * @since 0.2.0
 */
export const make = (
  name: string,
  cap?: Cap,
  options: {
    /** What an earlier purse of this name had spent. @default nothing */
    readonly kept?: Kept | undefined
    /** Is told of each change, at once. What it throws is ignored. */
    readonly changed?: (() => void) | undefined
  } = {}
): Purse => {
  const { changed, kept } = options
  const inner = new Ledger.Purse(name, keepingOf(cap), kept, changed && harmless(changed))
  const purse: Purse = {
    name,
    status: Effect.map(Clock.currentTimeMillis, (now) => inner.status(now)),
    resize: (cap) => Effect.map(Clock.currentTimeMillis, (now) => inner.resize(keepingOf(cap), now)),
    kept: Effect.sync(() => inner.ledger.kept)
  }
  Ledger.behind.set(purse, inner)
  return purse
}

// -----------------------------------------------------------------------------
// Paying
// -----------------------------------------------------------------------------

/**
 * Lets the calls of an effect pay from a purse, and from those around it.
 *
 * @category combinators
 * @since 0.2.0
 */
export const from =
  (purse: Purse) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.updateService(self, Purses, (purses) => [...purses, purse])
