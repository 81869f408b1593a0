/**
 * A provider of language models as a client meets it: pure, deterministic and synchronous. It shares no code with the
 * library nor with its simulated provider.
 *
 * A call is decided when it arrives: accepted, rejected (429) or failed. The outcome says how much later the client learns
 * of it, and what it learns. How it counts:
 *
 * - requests, input and `tokens` count when the call is accepted; output counts in five pieces while the answer is written,
 *   and a call is admitted while any room for output is left
 * - a rejection costs nothing, or a request and a twentieth of the tokens
 * - a call that fails with a status counts as a request, one that fails in an outage as nothing
 * - calls that were accepted before an outage are answered
 * - headers hold what is left right after the decision, and arrive with the answer or the rejection
 */
import * as Account from "./account.ts"
import * as Agenda from "./agenda.ts"
import { type Amounts, type Dimension, dimensionsOf, type Readings } from "./amounts.ts"
import * as Headers from "./headers.ts"
import * as Meter from "./meter.ts"
import * as Neighbours from "./neighbours.ts"
import * as Prng from "./prng.ts"
import * as Ramp from "./ramp.ts"
import { binding, type Failure, minBurst, meanCall, type Scenario, showsAfter } from "./scenario.ts"

/** The parts of a call that the provider sees. */
export interface Request {
  readonly input: number
  readonly output: number
  /** Fails with 500, whenever it is sent. */
  readonly isPoison: boolean
}

export type Outcome =
  | { readonly kind: "answer"; readonly after: number; readonly readings: Readings | undefined }
  | {
      readonly kind: "rejection"
      readonly after: number
      readonly readings: Readings | undefined
      readonly retryAfter: number | undefined
      /** `ramp` for an acceleration limit, as providers name it; else nothing. */
      readonly code: "ramp" | undefined
      /** Whether it was random, and not at a limit. */
      readonly isRandom: boolean
    }
  | { readonly kind: "failure"; readonly after: number; readonly failure: Failure }

export interface Provider {
  readonly arrive: (request: Request, now: number) => Outcome
  /** For the oracle: milliseconds until the call would be accepted if nothing else came. */
  readonly waitFor: (request: Request, now: number) => number
  /** Lets the neighbours act up to the end of the run. */
  readonly account: (end: number) => Account.Account
}

const failureSigma = 0.3
const outputPieces = 5

export const amountsOf = (request: Request): Amounts & { readonly inputTokens: number } => ({
  requests: 1,
  inputTokens: request.input,
  outputTokens: request.output,
  tokens: request.input + request.output
})

export const make = (scenario: Scenario, seed: number): Provider => {
  const prng = Prng.make(seed, 1)
  const dimensions = dimensionsOf(scenario.limits)
  const phase = Math.floor(prng.next() * 60_000)
  const meters = dimensions.map((dimension) => ({
    dimension,
    perMinute: scenario.limits[dimension]!.perMinute,
    burst: (factor: number) => burstAt(scenario, dimension, factor),
    meter: Meter.make(scenario.window, scenario.limits[dimension]!, phase)
  }))
  const account = Account.make(scenario)
  const bound = binding(scenario)
  const neighbourCall = meanCall(scenario)
  const neighbours = Neighbours.make(scenario.neighbours, bound.perMinute / 60_000, Prng.make(seed, 2))
  const boundLimit = scenario.limits[bound.dimension]!.perMinute / 60_000
  const ramp = scenario.acceleration && Ramp.make(scenario.acceleration.growth, scenario.acceleration.from, boundLimit)
  const spending = Agenda.make<{ readonly output: number; readonly isLast: boolean }>()
  const readings = Headers.make(scenario, meters, prng)
  let inFlight = 0
  /** Output of accepted calls that is not produced yet. */
  let unspent = 0
  let changed = 0
  let factor = 1

  /** Output counts when it is produced, so admission only needs some room for it. */
  const needed = (dimension: Dimension, amounts: Amounts) =>
    dimension === "outputTokens" ? 1 : (amounts[dimension] ?? 0)

  const takeForNeighbours = (calls: number, at: number): number => {
    let taken = calls
    for (const { dimension, meter } of meters) {
      taken = Math.min(taken, Math.floor(Math.max(0, meter.room(at)) / neighbourCall[dimension]))
    }
    if (taken === 0) return 0
    const amounts: { [D in Dimension]?: number } = {}
    for (const { dimension, meter } of meters) {
      amounts[dimension] = taken * neighbourCall[dimension]
      meter.take(amounts[dimension]!, at)
    }
    account.neighbours(amounts, at)
    return taken
  }

  /** Plays everything between the last call and this one, in order. */
  const advance = (now: number) => {
    while (changed < scenario.changes.length && scenario.changes[changed]!.at <= now) {
      const change = scenario.changes[changed++]!
      advanceTo(change.at)
      factor = change.factor
      for (const { burst, meter, perMinute } of meters) meter.resize(perMinute * factor, burst(factor), change.at)
    }
    advanceTo(now)
  }
  const advanceTo = (now: number) => {
    while (spending.next() <= now) {
      const at = spending.next()
      const { isLast, output } = spending.take()!
      neighbours.advance(at, (bound.perMinute / 60_000) * factor, allowed)
      if (isLast) inFlight--
      unspent -= output
      for (const { dimension, meter } of meters) if (dimension === "outputTokens") meter.take(output, at)
    }
    neighbours.advance(now, (bound.perMinute / 60_000) * factor, allowed)
  }
  /** An outage hits the neighbours too. */
  const allowed = (calls: number, at: number) =>
    outageAt(scenario, at) === undefined ? takeForNeighbours(calls, at) : 0

  const fail = (failure: Failure, mean: number): Outcome => ({
    kind: "failure",
    failure,
    after: failure === "refused" || failure === "timeout" ? mean : prng.lognormal(mean, failureSigma)
  })

  const reject = (now: number, wait: number | undefined, code: "ramp" | undefined, isRandom: boolean): Outcome => ({
    kind: "rejection",
    after: prng.lognormal(scenario.verdict.mean, scenario.verdict.sigma),
    readings: readings(now, factor),
    retryAfter:
      scenario.retryAfter && wait !== undefined && wait < Infinity
        ? Math.max(1, Math.ceil(wait / 1000)) * 1000
        : undefined,
    code,
    isRandom
  })

  const chargeRejection = (amounts: Amounts, now: number) => {
    for (const { dimension, meter } of meters) {
      const charge = (amounts[dimension] ?? 0) * (dimension === "requests" ? 1 : 0.05)
      const there = Math.max(0, meter.room(now))
      if (dimension !== "outputTokens" && there > 0) meter.take(Math.min(charge, there), now)
    }
  }

  const waitForRoom = (amounts: Amounts, now: number): number => {
    let wait = 0
    for (const { dimension, meter } of meters) {
      const amount = needed(dimension, amounts)
      if (meter.room(now) < amount) wait = Math.max(wait, meter.waitFor(amount, now))
    }
    return wait
  }

  const arrive = (request: Request, now: number): Outcome => {
    advance(now)
    const outage = outageAt(scenario, now)
    if (outage !== undefined) return fail(outage.failure, outage.showsAfter)
    const amounts = amountsOf(request)
    if (inFlight >= (scenario.concurrency ?? Infinity)) return reject(now, undefined, undefined, false)
    const accelerationWait = ramp === undefined ? 0 : ramp.waitFor(amounts[bound.dimension]!, now)
    if (accelerationWait > 0) return reject(now, accelerationWait, "ramp", false)
    const wait = waitForRoom(amounts, now)
    if (wait > 0) {
      if (scenario.rejections === "charged") chargeRejection(amounts, now)
      return reject(now, wait, undefined, false)
    }
    if (prng.next() < scenario.random429) return reject(now, 0, undefined, true)
    if (request.isPoison || prng.next() < scenario.random5xx) {
      for (const { dimension, meter } of meters) if (dimension === "requests") meter.take(1, now)
      return fail("500", showsAfter["500"])
    }
    return accept(request, amounts, now)
  }

  const accept = (request: Request, amounts: Amounts, now: number): Outcome => {
    for (const { dimension, meter } of meters) if (dimension !== "outputTokens") meter.take(amounts[dimension]!, now)
    ramp?.take(amounts[bound.dimension]!, now)
    account.ours(amounts, now)
    const after = prng.lognormal(scenario.latency.mean, scenario.latency.sigma)
    account.held(now, now + after)
    inFlight++
    unspent += request.output
    const pieces = scenario.limits.outputTokens === undefined ? 1 : outputPieces
    for (let piece = 1; piece <= pieces; piece++) {
      const at = now + (after * piece) / pieces
      spending.add(at, { output: request.output / pieces, isLast: piece === pieces })
    }
    return { kind: "answer", after, readings: readings(now, factor) }
  }

  const waitFor = (request: Request, now: number): number => {
    advance(now)
    const outage = outageAt(scenario, now)
    if (outage !== undefined) return outage.to - now
    if (inFlight >= (scenario.concurrency ?? Infinity)) return Math.max(1, spending.next() - now)
    const amounts = amountsOf(request)
    return Math.max(
      ramp?.waitFor(amounts[bound.dimension]!, now) ?? 0,
      waitForRoom(amounts, now),
      waitForOutput(request.output, now)
    )
  }
  /** The time until the output in flight fits into the level plus the refill during an answer. */
  const waitForOutput = (output: number, now: number): number => {
    const limit = scenario.limits.outputTokens
    const meter = meters.find(({ dimension }) => dimension === "outputTokens")?.meter
    if (limit === undefined || meter === undefined) return 0
    const perMilli = (limit.perMinute * factor) / 60_000
    return Math.max(0, (unspent + output - meter.room(now)) / perMilli - scenario.latency.mean / 2)
  }

  return {
    arrive,
    waitFor,
    account: (end) => {
      advance(end)
      return account
    }
  }
}

/** The burst at a factor of the limit; it always holds a few calls. */
const burstAt = (scenario: Scenario, dimension: Dimension, factor: number): number => {
  const { burst } = scenario.limits[dimension]!
  return Math.max(burst * factor, Math.min(burst, minBurst * meanCall(scenario)[dimension]))
}

const outageAt = (scenario: Scenario, at: number) =>
  scenario.outages.find((outage) => at >= outage.from && at < outage.to)
