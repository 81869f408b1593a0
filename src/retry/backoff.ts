/**
 * How long to wait before a retry: plain arithmetic in milliseconds. Time and random numbers are arguments.
 *
 * The variants are those of Marc Brooker's study "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015,
 * https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), and Effect's own.
 */

/** How a delay is spread. */
export type Jitter = "full" | "equal" | "decorrelated" | "proportional" | "none"

/** Every variant, the recommended one first. */
export const jitters: ReadonlyArray<Jitter> = ["full", "equal", "decorrelated", "proportional", "none"]

/** Delays in milliseconds: the first one, the growth per attempt, and the longest before jitter. */
export interface Backoff {
  readonly base: number
  readonly factor: number
  readonly cap: number
}

/** The part of a `retry-after` that may be added to it. */
const upward = 0.2

/** The delay after the failure of attempt `attempt` (from 1), without jitter. */
export const exponential = (backoff: Backoff, attempt: number): number =>
  Math.min(backoff.cap, backoff.base * backoff.factor ** (attempt - 1))

/** Spreads a delay that is already capped, with a random number in [0, 1). */
export const spread = (jitter: "full" | "equal", delay: number, random: number): number =>
  jitter === "full" ? delay * random : (delay * (1 + random)) / 2

/** Between the base and three times the previous delay (the base, before the first one), and never above the cap. */
export const decorrelated = (
  { base, cap }: Pick<Backoff, "base" | "cap">,
  previous: number | undefined,
  random: number
): number => Math.min(cap, base + ((previous ?? base) * 3 - base) * random)

/**
 * A delay with the provider's `retryAfter` as its floor. The floor is spread upwards only, by up to a fifth, and whole
 * milliseconds are rounded up, because timers cut fractions off: never earlier than asked.
 */
export const atLeast = (delay: number, retryAfter: number | undefined, random: number): number =>
  Math.ceil(Math.max(delay, Math.max(0, retryAfter ?? 0) * (1 + upward * random)))
