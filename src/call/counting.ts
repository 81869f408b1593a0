/**
 * Counts large prompts at the provider while their calls wait. A guess by bytes may be wrong by half for the first prompts of a kind,
 * and an estimate that is too high by 50,000 tokens makes a whole job wait.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { isAmount } from "../domain/amounts.ts"
import type { TokenBudget } from "../Budget.ts"
import type { Call } from "./models.ts"
import type { PoolRecord } from "./pool.ts"
import type { KnownCall } from "./usage.ts"

/** Smaller prompts are not worth a request. */
export const minCountedBytes = 27_000

/** A prompt is counted if the count is expected to change its estimate by this many tokens. */
const minError = 5_000

/** A later count is of no use, because most calls have been sent by then. */
const patience = "10 seconds"
const maxAtOnce = 16

/** After a failure nothing is counted for this long, and longer after each further one, because the provider may not count at all. */
const firstPauseMillis = 60_000
const maxPauseMillis = 3_600_000

/** A queue in which a call waits, with what is known of the call there. */
interface CountedWait {
  readonly pool: PoolRecord
  known: KnownCall
}

/** A call, as far as counting is concerned. */
interface CountedCall {
  readonly request: Call
  readonly now: number
  readonly parts: {
    readonly budget: TokenBudget["Service"]
    readonly counter: PromptCounter | undefined
    readonly estimates: { readonly uncertainty: (call: KnownCall) => number } | undefined
    readonly learns: { readonly count: (call: KnownCall, tokens: number) => void } | undefined
  }
  /** The tokens of its prompt, once they are counted. */
  counted: number | undefined
}

/** The prompts that a governor counts. */
export class PromptCounter {
  private running = 0
  private failures = 0
  private pausedUntil = -Infinity

  /** Whether to count the prompt of a call. */
  isWorth({ now, parts, request }: CountedCall, { known }: CountedWait): boolean {
    if (known.inputTokens !== undefined || request.stored === true) return false
    if (this.running >= maxAtOnce || now < this.pausedUntil) return false
    // An estimator of the user's is trusted.
    return (parts.estimates?.uncertainty(known) ?? 0) >= minError
  }

  /** Counts a prompt, so that its estimate and those of others are made anew. */
  count(
    call: CountedCall,
    waits: ReadonlyArray<CountedWait>,
    counted: Effect.Effect<number, unknown>
  ): Effect.Effect<void> {
    const { budget, learns } = call.parts
    const begun = Effect.suspend(() => {
      this.running++
      return Effect.exit(Effect.timeout(Effect.interruptible(counted), patience))
    })
    const concluded = Effect.flatMap(begun, (exit) => {
      // A count that gives up has not failed.
      if (Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)) return Effect.void
      const tokens = Exit.isSuccess(exit) ? exit.value : undefined
      const isCounted = isAmount(tokens) && tokens > 0
      waits[0]!.pool.counts.counted(1, isCounted ? "counted" : "failed")
      this.failures = isCounted ? 0 : this.failures + 1
      if (!isCounted) {
        this.pausedUntil = call.now + Math.min(maxPauseMillis, firstPauseMillis * this.failures)
        return Effect.void
      }
      call.counted = tokens
      for (const wait of waits) {
        learns?.count(wait.known, tokens)
        wait.known = { ...wait.known, inputTokens: tokens }
      }
      // Each pool looks at its first call again.
      return Effect.forEach(waits, ({ pool }) => budget.observe({ dimensions: {}, pool: pool.name }), { discard: true })
    })
    return Effect.ensuring(
      concluded,
      Effect.sync(() => this.running--)
    )
  }
}

/** Counts the prompt of a call as long as the call waits in queues. A call that need not wait counts nothing. */
export const whileWaiting = <A, E, R>(
  call: CountedCall,
  waits: ReadonlyArray<CountedWait>,
  waiting: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => {
  const { countTokens } = call.request
  const { counter } = call.parts
  const [first] = waits
  if (countTokens === undefined || first!.known.bytes < minCountedBytes) return waiting
  if (counter?.isWorth(call, first!) !== true) return waiting
  // It begins in a later task, and is interrupted before that if the call is admitted at once. It ends with the call however that is
  // interrupted.
  return Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.forkDetach(counter.count(call, waits, countTokens)), (fiber) =>
      Effect.ensuring(
        restore(waiting),
        Effect.sync(() => fiber.interruptUnsafe())
      )
    )
  )
}
