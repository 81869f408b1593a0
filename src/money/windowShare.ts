/** The refusal of a call that may not use more of a long window. */
import * as Schema from "effect/Schema"
import { percent } from "../domain/words.ts"

/**
 * The long window of the account is used up, or the call is not interactive and the share for such calls is used up.
 * `used` and `share` are fractions, and `until` is when the window ends, in milliseconds since the epoch. It is the `cause` of a
 * `BudgetError` with the reason `Denied`.
 *
 * @stability stable
 * @category errors
 * @since 0.4.0
 */
export class WindowShareUsed extends Schema.TaggedError<WindowShareUsed>("floodgate/Spending/WindowShareUsed")(
  "WindowShareUsed",
  { window: Schema.String, used: Schema.Finite, share: Schema.Finite, until: Schema.optional(Schema.Finite) }
) {
  /** Whether the call fits later. */
  get isRetryable(): boolean {
    return this.until !== undefined
  }
  override get message(): string {
    const { share, until, used, window } = this
    const when = until === undefined ? [] : [`wait until ${new Date(until).toISOString()}`]
    return share < 1
      ? `${percent(used)} of the account's window of ${window} are used, and this call may use up to ${percent(share)}: ${[...when, "raise the share"].join(", or ")}`
      : [`The account's window of ${window} is used up`, ...when].join(": ")
  }
}
