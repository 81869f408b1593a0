/**
 * Drives an admission law through a weather, event by event, in virtual time.
 *
 * **A law** decides when calls are sent. The engine owns everything else: the agents and their calls, a queue that is fair
 * between agents, and the retries. It asks the law about the call at the head of the queue, and again when the wait that the
 * law gave is over or any event happened. No call overtakes the head.
 *
 * To plug a law in, export `make(limits, dimensions, now, { share })` from a module and run
 *
 *     npm run -s bench -- weather --law-file path/of/the/module.ts --random 1..40
 *
 * **Retries** are the same for every law: full jitter of 2 s, doubled for each failure of the call's own, at most 60 s; a
 * `retry-after` is a floor, plus up to a fifth; 5 attempts, 10 minutes in all from the creation of the call. A failure for
 * which the law answers "exhausted", "ramp" or "outage" is the pool's, and uses up no attempt.
 */
import * as Agenda from "./agenda.ts"
import { type Amounts, type Dimension, dimensionsOf, type Readings, type ToldLimits } from "./amounts.ts"
import * as Prng from "./prng.ts"
import * as Provider from "./provider.ts"
import * as Queue from "./queue.ts"
import { type Failure, fairPart, meanCall, type Scenario } from "./scenario.ts"
import * as Score from "./score.ts"
import * as Workload from "./workload.ts"

/** What a law learns from a rejection (429). It does not learn the cost of a charged one, which only headers show. */
export interface Rejection {
  readonly code: "ramp" | undefined
  /** Milliseconds. */
  readonly retryAfter: number | undefined
  readonly readings: Readings | undefined
}

/** What a law learns from a failure other than a rejection. `used` is what the client must assume that the call used. */
export interface Overload {
  readonly failure: Failure
  readonly used: Amounts
}

/** Isolated: it says nothing about the limits, and counts as an attempt of the call. */
export type Verdict = "isolated" | "exhausted" | "ramp"

/**
 * An admission law. It may keep state. Times are in milliseconds, amounts are {@link Amounts}. A call's charge has the
 * limited dimensions: requests, input and `tokens` are exact, output is the mean, as a client would estimate it. `T` is what
 * the law remembers of a call in flight.
 */
export interface Law<T = unknown> {
  /** Returns 0 if the call may go now, and `send` follows at once; otherwise the milliseconds until it is asked again. */
  ask(charge: Amounts, now: number): number
  send(charge: Amounts, now: number): T
  /** The answer came. `used` are the amounts that the call really used. */
  answered(ticket: T, used: Amounts, now: number, readings: Readings | undefined): void
  /** The call was rejected with a 429. */
  rejected(ticket: T, now: number, rejection: Rejection): Verdict
  /** The call failed, but not at a limit. "outage" blames the provider, so that it does not count as an attempt. */
  overloaded(ticket: T, now: number, overload: Overload): "isolated" | "outage"
  /** The user states other limits; a missing dimension no longer has a stated limit. */
  resized?(limits: ToldLimits, now: number): void
  /**
   * Milliseconds until the next attempt after a number of isolated failures of the call, or undefined to give up. Without it,
   * the engine's retries apply. `random` is from 0 to 1.
   */
  retryIn?(failures: number, retryAfter: number | undefined, random: number): number | undefined
  /** For laws that refuse calls: asked once before a call is queued. A refusal counts as a rejected attempt. */
  refuses?(charge: Amounts, now: number): boolean
}

/** The arguments of a law. Only an oracle looks at the provider. */
export interface Setting {
  readonly limits: ToldLimits
  readonly dimensions: ReadonlyArray<Dimension>
  readonly seed: number
  /** The fraction of the limits that the user gives to this client. */
  readonly share: number
  /** For the oracle: the real limits, our fair share, and the time until the queue's head would be accepted. */
  readonly trueLimits: ToldLimits
  readonly fairPart: number
  readonly waitFor: (now: number) => number
}
export type MakeLaw = (setting: Setting) => Law

/** The shortest wait: a finer timer would change nothing. */
const minWait = 0.05
const attemptsMost = 5
const deadlineMillis = 600_000
const backoff = { first: 2000, most: 60_000, above: 0.2 }

type Event =
  | { readonly kind: "retold"; readonly limits: ToldLimits }
  | { readonly kind: "queue"; readonly call: Workload.Call }
  | { readonly kind: "end"; readonly call: Workload.Call; readonly ticket: unknown; readonly outcome: Provider.Outcome }

/** The engine's retries, as described above. */
const retryIn = (failures: number, retryAfter: number | undefined, random: number): number | undefined => {
  if (failures >= attemptsMost) return undefined
  const most = Math.min(backoff.most, backoff.first * 2 ** Math.max(0, failures - 1))
  return Math.max(most * random, (retryAfter ?? 0) * (1 + backoff.above * random))
}

/** The limits as they are given to the client. */
const toldOf = (limits: Scenario["limits"], told: Scenario["told"]): ToldLimits => {
  const result: { [D in Dimension]?: { perMinute: number; burst: number | undefined } } = {}
  for (const dimension of dimensionsOf(limits)) {
    const { burst, perMinute } = limits[dimension]!
    if (told[dimension] === "bare") result[dimension] = { perMinute, burst: undefined }
    if (told[dimension] === "burst" || told[dimension] === "asCounted") result[dimension] = { perMinute, burst }
  }
  return result
}

export const run = (scenario: Scenario, seed: number, makeLaw: MakeLaw): Score.Result => {
  const provider = Provider.make(scenario, seed)
  const prng = Prng.make(seed, 4)
  const queue = Queue.make<Workload.Call>(scenario.work.agents)
  const agenda = Agenda.make<Event>()
  const tally = Score.tally(scenario)
  const work = Workload.make(scenario, seed)
  const dimensions = dimensionsOf(scenario.limits)
  const mean = meanCall(scenario)
  let now = 0
  let wakeAt = Infinity

  const law = makeLaw({
    limits: toldOf(scenario.limits, scenario.told),
    dimensions,
    seed,
    share: scenario.share,
    trueLimits: scenario.limits,
    fairPart: fairPart(scenario),
    waitFor: (now) => provider.waitFor(queue.head()!, now)
  })

  const only = (amounts: Amounts): Amounts => {
    const result: { [D in Dimension]?: number } = {}
    for (const dimension of dimensions) result[dimension] = amounts[dimension] ?? 0
    return result
  }
  const chargeOf = (call: Workload.Call): Amounts =>
    only({ ...Provider.amountsOf(call), outputTokens: mean.outputTokens })

  const enqueue = (call: Workload.Call) => {
    call.charge ??= chargeOf(call)
    if (law.refuses?.(call.charge, now) === true) {
      call.failures++
      retry(call, undefined)
    } else queue.add(call.agent, call, call.attempts > 0)
  }

  /** The worker of an ended call starts its next one. */
  const ended = (call: Workload.Call, isLost: boolean) => {
    tally.ended(call, now, isLost)
    const next = work.next(call, now, isLost)
    if (next !== undefined) enqueue(next)
  }

  const retry = (call: Workload.Call, retryAfter: number | undefined) => {
    const wait = (law.retryIn?.bind(law) ?? retryIn)(call.failures, retryAfter, prng.next())
    if (wait === undefined || now + wait > call.createdAt + deadlineMillis) return ended(call, true)
    agenda.add(now + wait, { kind: "queue", call })
  }

  const send = (call: Workload.Call) => {
    call.attempts++
    const ticket = law.send(call.charge!, now)
    const outcome = provider.arrive(call, now)
    tally.sent(call, outcome, now)
    agenda.add(now + outcome.after, { kind: "end", call, ticket, outcome })
  }

  const finish = ({ call, outcome, ticket }: Event & { kind: "end" }) => {
    switch (outcome.kind) {
      case "answer":
        law.answered(ticket, only(Provider.amountsOf(call)), now, outcome.readings)
        return ended(call, false)
      case "rejection": {
        const { code, readings, retryAfter } = outcome
        if (law.rejected(ticket, now, { code, readings, retryAfter }) === "isolated") call.failures++
        return retry(call, retryAfter)
      }
      case "failure": {
        const { failure } = outcome
        if (law.overloaded(ticket, now, { failure, used: usedBy(failure, call) }) === "isolated") call.failures++
        return retry(call, undefined)
      }
    }
  }
  /** A status counts as a request, a refused connection as nothing. After a reset or a timeout the input may have counted. */
  const usedBy = (failure: Failure, call: Workload.Call): Amounts => {
    if (failure === "refused") return {}
    return failure === "500" || failure === "529" ? { requests: 1 } : only({ ...call.charge, outputTokens: 0 })
  }

  /** Sends from the head of the queue for as long as the law allows it. */
  const drain = () => {
    wakeAt = Infinity
    for (let call = queue.head(); call !== undefined; call = queue.head()) {
      if (now > call.createdAt + deadlineMillis) {
        queue.take()
        ended(call, true)
        continue
      }
      const wait = law.ask(call.charge!, now)
      if (!(wait >= 0)) throw new Error(`the law let a call wait for ${wait} ms`)
      if (wait > 0) {
        wakeAt = now + Math.max(minWait, wait)
        return
      }
      queue.take()
      send(call)
    }
  }

  for (const { at, told } of scenario.retold) agenda.add(at, { kind: "retold", limits: toldOf(scenario.limits, told) })
  for (const call of work.start()) enqueue(call)
  drain()
  while (true) {
    const next = agenda.next()
    now = Math.min(next, wakeAt)
    if (now >= scenario.millis || (now === Infinity && queue.head() === undefined)) break
    if (next <= wakeAt) {
      const event = agenda.take()!
      if (event.kind === "queue") enqueue(event.call)
      else if (event.kind === "end") finish(event)
      else law.resized?.(event.limits, now)
    }
    drain()
  }
  const expired = queue.all().filter((call) => call.createdAt + deadlineMillis < scenario.millis)
  return tally.result(provider.account(scenario.millis), expired)
}
