/** The flags for a provider's limits. */
import type * as CliError from "effect/cli/CliError"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Budget from "floodgate/Budget"
import type * as Limits from "floodgate/Limits"
import { invalidFlag, orInvalid } from "./errors.ts"
import { count, optional, positive } from "./flags.ts"

/** The number of calls that may be in flight. */
export const concurrency = count("concurrency", 1_000_000).pipe(
  optional("Calls in flight at once (default: as many as the limits allow)")
)

/** How the provider counts. */
export const window = Flag.Literals("window", ["bucket", "sliding", "fixed"])

/** The flags for limits. Without them there is no limit. */
export const flags = {
  inputTokensPerMinute: positive("input-tokens-per-minute").pipe(
    optional("Input tokens that the provider allows per minute")
  ),
  outputTokensPerMinute: positive("output-tokens-per-minute").pipe(
    optional("Output tokens that the provider allows per minute")
  ),
  requestsPerMinute: positive("requests-per-minute").pipe(optional("Requests that the provider allows per minute")),
  tokensPerSecond: positive("tokens-per-second").pipe(
    optional("Input and output tokens together that the provider allows per second")
  ),
  burst: positive("burst").pipe(optional("Tokens that the provider allows at once, for each limit on tokens")),
  window: window.pipe(
    optional("How the provider counts limits per minute; Anthropic documents a bucket (default: bucket)")
  )
}

/** The values of these flags. */
export interface LimitFlagValues {
  readonly inputTokensPerMinute: Option.Option<number>
  readonly outputTokensPerMinute: Option.Option<number>
  readonly requestsPerMinute: Option.Option<number>
  readonly tokensPerSecond: Option.Option<number>
  readonly burst: Option.Option<number>
  readonly window: Option.Option<NonNullable<Limits.Limit["window"]>>
}

/** The limits of the flags; undefined if there are none. */
const limitsOf = (given: LimitFlagValues): Limits.Limits | undefined => {
  const window = Option.getOrElse(given.window, () => "bucket" as const)
  const burst = Option.getOrUndefined(given.burst)
  const perMinute = (value: Option.Option<number>, burst: number | undefined): Limits.Limit | undefined =>
    Option.isNone(value) ? undefined : { perMinute: value.value, window, burst }
  const limits: Limits.Limits = {
    requests: perMinute(given.requestsPerMinute, undefined),
    inputTokens: perMinute(given.inputTokensPerMinute, burst),
    outputTokens: perMinute(given.outputTokensPerMinute, burst),
    tokens: Option.isNone(given.tokensPerSecond) ? undefined : { perSecond: given.tokensPerSecond.value, burst }
  }
  return Object.values(limits).some((limit) => limit !== undefined) ? limits : undefined
}

/** The limits of the flags. Fails if they are invalid, or if a flag would have no effect. */
export const checked = Effect.fnUntraced(function* (
  command: string,
  given: LimitFlagValues
): Effect.fn.Return<Limits.Limits | undefined, CliError.ShowHelp> {
  const { burst, inputTokensPerMinute, outputTokensPerMinute, requestsPerMinute, tokensPerSecond, window } = given
  const hasNone = (...limits: ReadonlyArray<Option.Option<number>>) => limits.every(Option.isNone)
  if (Option.isSome(burst) && hasNone(inputTokensPerMinute, outputTokensPerMinute, tokensPerSecond)) {
    return yield* invalidFlag(command)("burst", "a limit on tokens beside it", String(burst.value))
  }
  if (Option.isSome(window) && hasNone(inputTokensPerMinute, outputTokensPerMinute, requestsPerMinute)) {
    return yield* invalidFlag(command)("window", "a limit per minute beside it", window.value)
  }
  const limits = limitsOf(given)
  if (limits !== undefined) yield* orInvalid(command, "Budget")(() => Budget.make({ limits }))
  return limits
})
