/** The errors of calls that a ledger refuses. Purses and trees bring them, so a client without caps does not have them. */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { type CapInUnits, perDollar } from "../domain/spending/ledger.ts"
import * as Months from "../domain/spending/months.ts"
import { counted, dollars, thousands } from "../domain/words.ts"
import type { CapRefusal } from "../sharing/ledger.ts"
import type { Denial, DeniedCall } from "./ledger.ts"

/** How the tokens of a prompt are bounded that was not counted. */
const promptTaken = (verified: number | undefined): string =>
  verified === undefined
    ? "its prompt was not counted, so each byte of it is taken for a token"
    : `${counted(verified, "token")} of its prompt were answered before, each byte of the rest is taken for a token, and nothing is assumed to be read from the cache`

/**
 * A cap in dollars has too little left for the call, or running calls have reserved what is left for longer than the call may wait.
 * It is the `cause` of a `BudgetError` with the reason `Denied`. `purse` is the name of the purse, and `until` is when the call would
 * fit, in milliseconds since the epoch. The message says why a call may cost much more than is expected: how much output `max_tokens`
 * allows, and whether the tokens of its prompt are known.
 *
 * @stability stable
 * @category errors
 * @since 0.2.0
 */
export class SpendCapReached extends Schema.TaggedError<SpendCapReached>("floodgate/Spending/SpendCapReached")(
  "SpendCapReached",
  {
    purse: Schema.String,
    /** The amount to reserve: with `reserve: "most"` the most that the call can cost. In dollars, as the next ones. */
    asked: Schema.Finite,
    /** The expected cost of the call (since 0.5.0). */
    expected: Schema.optional(Schema.Finite),
    /** The amount spent in the period of the cap (since 0.5.0). */
    spent: Schema.optional(Schema.Finite),
    /** The amount that running calls have reserved (since 0.5.0). */
    reserved: Schema.optional(Schema.Finite),
    /** The limit without what was spent. */
    left: Schema.Finite,
    limit: Schema.Finite,
    /** Such as "a day". */
    per: Schema.optional(Schema.String),
    until: Schema.optional(Schema.Finite),
    /** The output that the request allows, and how much of it is expected, in tokens (since 0.5.0). */
    maxTokens: Schema.optional(Schema.Finite),
    expectedTokens: Schema.optional(Schema.Finite),
    /** Whether the tokens of the prompt are known. Otherwise each of its bytes counts as one (since 0.5.0). */
    isCounted: Schema.optional(Schema.Boolean),
    /** The tokens of the part of the prompt that was answered before (since 0.5.0). */
    verifiedTokens: Schema.optional(Schema.Finite)
  }
) {
  /** Whether the call fits later: at `until`, or when running calls have given back what they have reserved. */
  get isRetryable(): boolean {
    return this.until !== undefined || this.asked <= this.left
  }
  override get message(): string {
    const { asked, left, limit, per, purse, reserved = 0, spent, until } = this
    const cap = `the cap of ${per === undefined ? dollars(limit) : `${dollars(limit)} ${per}`} for ${purse}`
    const call = `The call may cost ${dollars(asked)}${this.why}`
    const used = spent === undefined ? "" : ` (${dollars(spent)} spent, ${dollars(reserved)} reserved by running calls)`
    if (asked <= left) {
      return `${call}, and running calls have reserved too much of ${cap}${used}: run fewer calls at once, lower max_tokens, or raise the cap`
    }
    const when = until === undefined ? "" : `wait until ${new Date(until).toISOString()}, `
    return `${call}, but only ${dollars(left)} is left of ${cap}${used}: ${when}lower max_tokens, or raise the cap`
  }
  /** Explains why the call may cost much more than is expected. */
  private get why(): string {
    const { asked, expected, expectedTokens = 0, isCounted, maxTokens, verifiedTokens } = this
    if (expected === undefined || asked < 1.5 * expected) return ""
    const reasons: Array<string> = []
    if (maxTokens !== undefined && maxTokens > expectedTokens) {
      reasons.push(
        `max_tokens allows ${counted(maxTokens, "token")} of output, and ${thousands(Math.ceil(expectedTokens))} are expected`
      )
    }
    if (isCounted === false) reasons.push(promptTaken(verifiedTokens))
    return ` at most (about ${dollars(expected)} is expected${reasons.map((reason) => `; ${reason}`).join("")})`
  }
}

/**
 * The call counts towards a cap in dollars, and nothing says what it costs at most, so the cap could not be enforced. `unknown` is
 * `"price"` if its model has none: add one, or call another model. It is `"output"` if neither the request nor the price of the
 * model limits its output: set `max_tokens`, add `maxOutput` to the price, or set the cap's `reserve` to `"expected"`. It is the
 * `cause` of a `BudgetError` with the reason `Denied`.
 *
 * @stability stable
 * @category errors
 * @since 0.5.0
 */
export class CostUnknown extends Schema.TaggedError<CostUnknown>("floodgate/Spending/CostUnknown")("CostUnknown", {
  unknown: Schema.Literals(["price", "output"]),
  model: Schema.String,
  purse: Schema.String
}) {
  /** A retry does not help. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    const { model, purse, unknown } = this
    return unknown === "price"
      ? `The model "${model}" has no price, so the cap for ${purse} cannot be enforced: add a price, or call another model`
      : `Nothing limits the output of the call, so the cap for ${purse} cannot be enforced: set max_tokens, add maxOutput to the price of the model, or set the cap's reserve to "expected"`
  }
}

/**
 * The store of a purse did not answer, or this process cannot reach it and has used up its own part of the cap. So it
 * is not known whether the call fits the cap. `cause` says why. It is the `cause` of a `BudgetError` with the reason `Denied`.
 *
 * @stability stable
 * @category errors
 * @since 0.4.0
 */
export class LedgerUnavailable extends Schema.TaggedError<LedgerUnavailable>("floodgate/Spending/LedgerUnavailable")(
  "LedgerUnavailable",
  { purse: Schema.String, cause: Schema.Defect() }
) {
  /** The store may answer the next attempt. */
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    const { cause, purse } = this
    const why = cause instanceof Error ? `: ${cause.message}` : ""
    return `The store did not say what was spent of the cap for ${purse}, so the call was not sent${why}`
  }
}

// -----------------------------------------------------------------------------
// Refusals
// -----------------------------------------------------------------------------

const perOf = ({ period }: CapInUnits): string | undefined => {
  if (period._tag === "Ever") return undefined
  if (period._tag === "Month") return `a ${Months.words(period)}`
  return period._tag === "Day" ? "a day" : `in ${Duration.format(Duration.millis(period.millis))}`
}

const spent = (
  { asked, cap, expected, held, left, until }: CapRefusal,
  purse: string,
  { model: _, ...call }: DeniedCall
): SpendCapReached =>
  new SpendCapReached({
    purse,
    asked: asked / perDollar,
    expected: expected / perDollar,
    spent: Math.max(0, cap.limit - left) / perDollar,
    reserved: held / perDollar,
    left: left / perDollar,
    limit: cap.limit / perDollar,
    per: perOf(cap),
    until,
    ...call
  })

/** Makes the errors of a ledger. `reachedOf` makes that of a cap which has too little left. */
export const denialOf =
  (reachedOf: (refusal: CapRefusal, purse: string, call: DeniedCall) => Error = spent): Denial =>
  (refusal, purse, call) => {
    const { model } = call
    if (refusal._tag === "LedgerLost") return new LedgerUnavailable({ purse, cause: refusal.cause })
    if (refusal._tag === "NoPrice") return new CostUnknown({ unknown: "price", model, purse })
    if (refusal.asked === Infinity) return new CostUnknown({ unknown: "output", model, purse })
    const reached = reachedOf(refusal, purse, call)
    return refusal.isAlone ? new LedgerUnavailable({ purse, cause: reached }) : reached
  }
