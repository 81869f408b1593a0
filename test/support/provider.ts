/**
 * A provider for the laws of the budget: a bucket of tokens that we share with others, random rejections, a limit of calls
 * in flight, outages. It shares no code with the budget or with ProviderSim.
 */

export interface Weather {
  /** Tokens that refill per millisecond, and the size of the bucket. */
  readonly rate: number
  readonly burst: number
  /** The initial level of the bucket. @default burst */
  readonly level?: number | undefined
  /** The fraction of the refill that others leave at a time. @default 1 */
  readonly share?: ((now: number) => number) | undefined
  /** The fractions of calls that are rejected, or fail with an overload, at random. @default 0 */
  readonly random?: number | undefined
  readonly broken?: number | undefined
  /** The limit of calls in flight. @default Infinity */
  readonly concurrency?: number | undefined
  /** When every call fails. */
  readonly outage?: { readonly from: number; readonly to: number } | undefined
  /** Whether responses have headers with the limit and what is left. @default false */
  readonly hasHeaders?: boolean | undefined
  /** The mean time to an answer, which varies by half in both directions. @default 2,000 */
  readonly answerMillis?: number | undefined
  /** The time to a rejection or an overload. @default 50 */
  readonly failMillis?: number | undefined
  /** Calls that always fail with an overload. */
  readonly isPoison?: ((id: number) => boolean) | undefined
}

export interface Outcome {
  readonly kind: "accepted" | "rejected" | "overloaded"
  readonly after: number
  /** Whether a rejection or an overload came at random, or because the call always fails. */
  readonly isRandom: boolean
  readonly remaining: number | undefined
}

export class Provider {
  readonly weather: Weather
  private readonly random: () => number
  private level: number
  private at = 0
  private inFlight = 0
  /** The tokens of accepted calls, and those that were available. */
  accepted = 0
  available: number

  constructor(weather: Weather, random: () => number) {
    this.weather = weather
    this.random = random
    this.level = this.available = weather.level ?? weather.burst
  }

  /** Refills the bucket in steps, because our share changes with time. */
  advance(now: number): void {
    const { burst, outage, rate, share = () => 1 } = this.weather
    while (this.at < now) {
      const step = Math.min(100, now - this.at)
      const part = rate * step * share(this.at)
      this.level = Math.min(burst, this.level + part)
      if (outage === undefined || this.at < outage.from || this.at >= outage.to) this.available += part
      this.at += step
    }
  }

  arrive(id: number, tokens: number, now: number): Outcome {
    this.advance(now)
    const {
      answerMillis = 2_000,
      broken = 0,
      concurrency = Infinity,
      failMillis = 50,
      hasHeaders,
      random = 0
    } = this.weather
    const { isPoison, outage } = this.weather
    const isDown = outage !== undefined && now >= outage.from && now < outage.to
    const dice = this.random()
    const answer = answerMillis * (0.5 + this.random())
    const isOwn = isPoison?.(id) === true || dice < broken
    if (isDown || isOwn) return { kind: "overloaded", after: failMillis, isRandom: !isDown, remaining: undefined }
    const isRandom = dice < broken + random
    const rejected = isRandom || tokens > this.level || this.inFlight >= concurrency
    if (!rejected) {
      this.level -= tokens
      this.accepted += tokens
      this.inFlight++
    }
    const remaining = hasHeaders === true ? Math.max(0, Math.floor(this.level)) : undefined
    return { kind: rejected ? "rejected" : "accepted", after: rejected ? failMillis : answer, isRandom, remaining }
  }

  /** An accepted call has ended. */
  leave(): void {
    this.inFlight--
  }
}
