/** Bounds the usages that answers and errors report to what their calls can use, and logs the first larger one of each pool. */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Accounting from "../Accounting.ts"
import { thousands } from "../domain/words.ts"
import type * as Limits from "../Limits.ts"
import type * as Prices from "../Prices.ts"
import * as Reported from "./reported.ts"
import type { KnownCall } from "./usage.ts"

/** A call whose usage is reported. */
interface ReportedCall {
  readonly known: KnownCall
  readonly price: Prices.Price | undefined
  readonly pool: { readonly name: string }
}

/** Names of pools come with requests, so the number of lines is bounded. */
const maxLines = 100

const sumInAnswer = ({ actual, prompt }: Reported.ReportedUsage): number => prompt + actual.outputTokens

const sumInError = ({ inputTokens = 0, outputTokens = 0, tokens = 0 }: Limits.Usage): number =>
  inputTokens + outputTokens + tokens

/** Returns usages as far as they are plausible. */
export class PlausibleUsage {
  private readonly seen = new Set<string>()
  private readonly fork: (effect: Effect.Effect<void>) => unknown

  constructor(fork: (effect: Effect.Effect<void>) => unknown) {
    this.fork = fork
  }

  /** Returns a plausible usage for what an answer reports. Some services report `null`. */
  ofAnswer(call: ReportedCall, actual: Accounting.Actual | undefined): Reported.ReportedUsage | undefined {
    if (!Predicate.isObject(actual)) return undefined
    const reported = Reported.read(actual)
    const within = Reported.below(Reported.ceilingOf(call.price, call.known), reported)
    if (within !== reported) this.log(call, sumInAnswer(reported), sumInAnswer(within))
    return within
  }

  /** Returns plausible facts for what an error reports. Errors of other libraries may have anything for a usage. */
  ofError<F extends { readonly usage?: Limits.Usage | undefined }>(call: ReportedCall, facts: F): F {
    const { usage } = facts
    if (!Predicate.isObject(usage)) return facts
    const within = Reported.belowInError(Reported.ceilingOf(call.price, call.known), usage)
    if (within === usage) return facts
    this.log(call, sumInError(usage), sumInError(within))
    return { ...facts, usage: within }
  }

  private log({ known: { model }, pool }: ReportedCall, reported: number, counted: number): void {
    const { fork, seen } = this
    if (seen.has(pool.name) || seen.size >= maxLines) return
    seen.add(pool.name)
    fork(
      Effect.logWarning(
        `A call to ${model} reported ${thousands(reported)} tokens, more than it can use, so ${thousands(counted)} are counted (pool "${pool.name}"; this is logged once): check what the service behind it counts, or state the model's context and maxOutput with its price`
      )
    )
  }
}
