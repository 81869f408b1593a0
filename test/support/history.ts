/**
 * Random histories of a budget: calls that arrive, end in any way and are interrupted, with headers and failures in between.
 * They record only what a caller sees, which the laws then check.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import type * as Budget from "floodgate/Budget"
import type * as Limits from "floodgate/Limits"
import type * as Amounts from "../../src/domain/amounts.ts"
import type * as Signal from "../../src/domain/signal.ts"
import type { Flow } from "./ledger.ts"
import { mulberry } from "./random.ts"
import { retryOf } from "./budget.ts"

export type Make = (options?: Budget.Options) => Effect.Effect<Budget.TokenBudget["Service"], never, Scope.Scope>
export type Dimension = Limits.Dimension

export const dimensions = ["requests", "inputTokens", "outputTokens", "tokens"] as const

/** How often each kind of step occurs, relative to the others. */
export interface Shape {
  readonly arrivals?: number
  readonly ends?: number
  /** Interruptions of waiters and of calls in flight. */
  readonly interrupts?: number
  /** Headers, pauses, rejections, overloads. */
  readonly weather?: number
  /** Resizes to the same limits, which change nothing. */
  readonly resizes?: number
}

/** A limit in figures, so that the checks need no code of the library. */
export interface Stated {
  readonly limit: Limits.Limit
  readonly burst: number
  /** Per millisecond. */
  readonly rate: number
  /** The limit of any 60 s, if it is a sliding window. */
  readonly window: number | undefined
  readonly isQuota: boolean
  /** The largest estimate that can be admitted. */
  readonly most: number
}

export interface Call {
  readonly id: number
  readonly agent: string
  readonly priority: number
  readonly first: boolean
  readonly charge: Amounts.Whole
  readonly arrivedAt: number
  /** The numbers of its events, which order them within a millisecond. */
  readonly arrival: number
  admittedAt: number | undefined
  admission: number | undefined
  readonly maxWait: number | undefined
  endedAt: number | undefined
  refusal: string | undefined
  wasInterrupted: boolean
  /** When it was refused or interrupted; `left` is the number of that event. */
  leftAt: number | undefined
  left: number | undefined
}

export interface Look {
  readonly at: number
  /** The number of events so far. */
  readonly event: number
  readonly status: Budget.PoolStatus
}

export interface History {
  readonly seed: number
  readonly stated: Partial<Record<Dimension, Stated>>
  readonly concurrency: number
  readonly maxQueued: number
  readonly calls: ReadonlyArray<Call>
  /** What was taken from each dimension and given back, in order. */
  readonly flows: Readonly<Record<Dimension, Flow>>
  /** The event number of each movement in the flows. */
  readonly events: ReadonlyArray<number>
  /** The status at the end of each step's millisecond. */
  readonly looks: ReadonlyArray<Look>
  readonly maxInFlight: number
  /** The number of events when the budget was closed. */
  readonly closed: number
  /** Calls that still waited after that. */
  readonly waitedClosed: number
  /** The errors that careless callers threw. */
  readonly thrown: ReadonlyArray<Harm>
}

/** Thrown by careless callers. */
export class Harm extends Error {}

export interface Options {
  readonly shape?: Shape
  readonly steps?: number
  /** The kinds of limits. @default buckets, bare limits per minute, sliding windows and quotas */
  readonly kinds?: ReadonlyArray<"bucket" | "bare" | "sliding" | "quota">
  /** Whether the first headers show a much larger limit, so that only the user's limits delay calls. */
  readonly isGenerous?: boolean
  readonly concurrency?: ReadonlyArray<number>
  readonly maxQueued?: ReadonlyArray<number>
  readonly maxWait?: boolean
  /** The largest charge, as a multiple of the burst. */
  readonly largest?: number
  /** Whether some callers have observers and finalizers that throw. */
  readonly isCareless?: boolean
  /** Whether the budget closes at one of the steps. */
  readonly closes?: boolean
}

interface Live {
  readonly call: Call
  readonly scope: Scope.Closeable
  fiber: Fiber.Fiber<unknown, unknown>
  reservation: Budget.Reservation | undefined
}

const agents = ["a", "b", "c", "d"]

export const run = (make: Make, seed: number, options: Options = {}): Effect.Effect<History> =>
  Effect.gen(function* () {
    const random = mulberry(seed)
    const below = (n: number) => Math.floor(random() * n)
    const pick = <A>(of: ReadonlyArray<A>): A => of[below(of.length)]!
    const { kinds = ["bucket", "bare", "sliding", "quota"], largest = 1.3, shape = {}, steps = 60 } = options
    const { arrivals = 1, ends = 1, interrupts = 0.2, resizes = 0, weather = 0 } = shape

    const stated: Partial<Record<Dimension, Stated>> = {}
    for (const dimension of dimensions) {
      if (random() < 0.5 && (dimension !== "tokens" || Object.keys(stated).length > 0)) continue
      stated[dimension] = state(pick(kinds), dimension, random)
    }
    const concurrency = pick(options.concurrency ?? [Infinity, Infinity, 2, 5])
    const maxQueued = pick(options.maxQueued ?? [Infinity])
    const limitsOf = (): Limits.Limits => {
      const limits: { [D in Dimension]?: Limits.Limit } = {}
      for (const dimension of dimensions)
        if (stated[dimension] !== undefined) limits[dimension] = stated[dimension].limit
      return limits
    }
    const within = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
    const budget = yield* Scope.provide(make({ limits: limitsOf(), concurrency, maxQueued }), within)
    const closesAt = options.closes === true ? Math.floor(mulberry(seed ^ 0xc105ed)() * steps) : Infinity
    const isCareless = mulberry(seed ^ 0x5eed)
    const thrown: Array<Harm> = []
    let closed = Infinity
    let waitedClosed = 0
    const clock = Effect.clockWith(({ currentTimeMillis }) => currentTimeMillis)

    let event = 0
    let inFlight = 0
    let maxInFlight = 0
    const calls: Array<Call> = []
    const live = new Map<number, Live>()
    const looks: Array<Look> = []
    const events: Array<number> = []
    type Movements = Array<Flow[number]>
    const flows = { requests: [], inputTokens: [], outputTokens: [], tokens: [] } as Record<Dimension, Movements>
    const move = (at: number, amounts: Amounts.Whole, sign: number, admittedAt: number | undefined) => {
      events.push(++event)
      for (const dimension of dimensions) flows[dimension].push({ at, amount: sign * amounts[dimension], admittedAt })
    }

    if (options.isGenerous === true) {
      const promised = { limit: 1e11, remaining: 1e11 }
      yield* budget.observe({ dimensions: Object.fromEntries(dimensions.map((each) => [each, promised])) })
      yield* TestClock.adjust("1 second")
    }

    const size = (dimension: Dimension) => {
      const { burst = 1_000 } = stated[dimension] ?? {}
      return Math.ceil(burst * (random() < 0.1 ? random() * largest : random() * Math.min(0.4, largest)))
    }

    const arrive = Effect.fnUntraced(function* () {
      const parts = { inputTokens: size("inputTokens"), outputTokens: size("outputTokens") }
      const charge: Amounts.Whole = {
        requests: random() < 0.9 ? 1 : 2,
        ...parts,
        tokens: stated.tokens === undefined ? parts.inputTokens + parts.outputTokens : size("tokens")
      }
      const maxWait = options.maxWait === true && random() < 0.3 ? Math.ceil(20_000 * random()) : undefined
      const call: Call = {
        id: calls.length,
        agent: pick(agents),
        priority: pick([0, 0, 0, 0, 1, -1]),
        first: random() < 0.1,
        charge,
        arrivedAt: yield* clock,
        arrival: ++event,
        admittedAt: undefined,
        admission: undefined,
        maxWait,
        endedAt: undefined,
        refusal: undefined,
        wasInterrupted: false,
        leftAt: undefined,
        left: undefined
      }
      calls.push(call)
      const scope = yield* Scope.make()
      const { agent, first, priority } = call
      const reserving = Scope.provide(budget.reserve(charge, retryOf({ agent, priority, maxWait }, first)), scope).pipe(
        Effect.tap((reservation) =>
          Effect.map(clock, (at) => {
            maxInFlight = Math.max(maxInFlight, ++inFlight)
            move(at, charge, 1, undefined)
            call.admittedAt = at
            call.admission = event
            live.get(call.id)!.reservation = reservation
          })
        ),
        Effect.tapError(({ reason }) =>
          Effect.map(clock, (at) => {
            call.refusal = reason._tag
            call.leftAt = at
            call.left = ++event
          })
        )
      )
      const entry: Live = { call, scope, fiber: undefined as never, reservation: undefined }
      live.set(call.id, entry)
      if (options.isCareless !== true || isCareless() > 0.4) {
        entry.fiber = yield* Effect.forkChild(reserving, { startImmediately: true })
        return
      }
      yield* Scope.addFinalizer(scope, Effect.die(new Harm()))
      entry.fiber = yield* Effect.forkChild(reserving, { startImmediately: true })
      if (entry.fiber.pollUnsafe() !== undefined) return
      entry.fiber.addObserver(() => {
        // The interrupting fiber runs the observers of the interrupted one.
        if (call.wasInterrupted) return
        const harm = new Harm()
        thrown.push(harm)
        throw harm
      })
    })

    const open = () => [...live.values()].filter(({ reservation }) => reservation !== undefined)
    const waiting = () =>
      [...live.values()].filter(
        ({ fiber, reservation }) => reservation === undefined && fiber.pollUnsafe() === undefined
      )

    /** Ends a call in one of the ways that callers have, or in several at once, where only the first counts. */
    const end = Effect.fnUntraced(function* ({ call, reservation, scope }: Live, isWeather: boolean) {
      live.delete(call.id)
      const { admittedAt, charge } = call
      const at = (call.endedAt = yield* clock)
      inFlight--
      const factor = pick([0, random(), 1, 1, 1 + random()])
      const used: Amounts.Whole = {
        requests: charge.requests,
        inputTokens: Math.floor(charge.inputTokens * factor),
        outputTokens: Math.floor(charge.outputTokens * factor),
        tokens: Math.floor(charge.tokens * factor)
      }
      const settledTo = (is: Amounts.Whole) => {
        const back: Amounts.Whole = {
          requests: charge.requests - is.requests,
          inputTokens: charge.inputTokens - is.inputTokens,
          outputTokens: charge.outputTokens - is.outputTokens,
          tokens: charge.tokens - is.tokens
        }
        move(at, back, -1, admittedAt)
      }
      const how = isWeather
        ? pick(["rejected", "overloaded", "ramp"] as const)
        : pick(["settled", "settled", "refunded", "closed", "kept"] as const)
      const nothing: Amounts.Whole = { requests: 0, inputTokens: 0, outputTokens: 0, tokens: 0 }
      switch (how) {
        case "settled": {
          settledTo(used)
          yield* reservation!.settle(used, pick(["success", "success", "failure"] as const))
          break
        }
        case "refunded": {
          settledTo(nothing)
          yield* reservation!.refund
          break
        }
        case "rejected":
        case "overloaded":
        case "ramp": {
          settledTo(nothing)
          const reasons = { rejected: "rateLimit", overloaded: "overload", ramp: "ramp" } as const
          yield* reservation!.fail({ reason: reasons[how], retryAfter: pick([undefined, 10, 2_000]) })
          break
        }
        case "closed":
          yield* Effect.exit(Scope.close(scope, pick([Exit.void, Exit.fail("failed")])))
          break
        case "kept":
          yield* reservation!.settle({})
      }
      if (random() < 0.3) yield* Effect.andThen(reservation!.refund, reservation!.settle(used))
      yield* Effect.exit(Scope.close(scope, Exit.void))
    })

    const interrupt = Effect.fnUntraced(function* (one: Live) {
      live.delete(one.call.id)
      one.call.wasInterrupted = true
      one.call.leftAt = yield* clock
      one.call.left = ++event
      yield* Fiber.interrupt(one.fiber)
      yield* Effect.exit(Scope.close(one.scope, Exit.void))
    })

    const observe = Effect.fnUntraced(function* () {
      const said: { [D in Dimension]?: Signal.DimensionSignal } = {}
      for (const dimension of dimensions) {
        if (random() < 0.5) continue
        said[dimension] = {
          limit: pick([undefined, 6_000, 60_000, 1e9, NaN, -1]),
          remaining: pick([undefined, 0, 500, 1e9, NaN, -5]),
          roundedTo: pick([undefined, 1, 1_000])
        }
      }
      const answered = pick([undefined, ...open().map(({ reservation }) => reservation)])
      yield* (answered ?? budget).observe({ dimensions: said })
    })

    const look = Effect.fnUntraced(function* () {
      yield* TestClock.adjust(0)
      looks.push({ at: yield* clock, event, status: (yield* budget.status).pools.default! })
      if (closed < Infinity) waitedClosed += waiting().length
    })

    for (let step = 0; step < steps; step++) {
      if (step === closesAt) {
        closed = event
        yield* Scope.close(within, Exit.void)
      }
      const of = [arrivals, ends, interrupts, weather, resizes, 1]
      let dice = random() * of.reduce((a, b) => a + b, 0)
      const action = of.findIndex((part) => (dice -= part) < 0)
      const [running, queued] = [open(), waiting()]
      if (action === 0) for (let i = pick([1, 1, 3]); i > 0; i--) yield* arrive()
      if (action === 1 && running.length > 0) yield* end(pick(running), false)
      if (action === 2 && queued.length > 0) yield* interrupt(pick(queued))
      if (action === 3) {
        if (running.length > 0 && random() < 0.4) yield* end(pick(running), true)
        else if (random() < 0.8) yield* observe()
        else yield* budget.pause({ duration: pick([10, 1_000]), reason: "rateLimit" })
      }
      if (action === 4) yield* budget.resize({ limits: limitsOf(), concurrency })
      if (action === 5) yield* TestClock.adjust(Math.floor(pick([1, 20, 500, 5_000]) * random()) + 1)
      yield* look()
    }
    // Every call is admitted or refused, and then ends.
    for (let rounds = 0; rounds < 300 && waiting().length > 0; rounds++) {
      yield* TestClock.adjust("1 minute")
      for (const one of open()) yield* Effect.andThen(end(one, false), look())
    }
    for (const one of open()) yield* Effect.andThen(end(one, false), look())
    yield* TestClock.adjust("10 hours")
    yield* look()
    for (const { scope } of live.values()) yield* Effect.exit(Scope.close(scope, Exit.void))
    const seen = { calls, flows, events, looks, maxInFlight, closed, waitedClosed, thrown }
    return { seed, stated, concurrency, maxQueued, ...seen }
  }).pipe(Effect.scoped, Effect.provide(TestClock.layer()))

/** A limit and its figures, as the documentation of `Limits` states them. */
const state = (kind: "bucket" | "bare" | "sliding" | "quota", dimension: Dimension, random: () => number): Stated => {
  const base = dimension === "requests" ? 0.01 : 1
  const perMinute = Math.ceil(60_000 * base * (0.5 + random()))
  switch (kind) {
    case "bucket": {
      const perSecond = perMinute / 60
      const burst = Math.ceil(perSecond * (0.5 + 5 * random()))
      const most = Math.max(burst, perMinute)
      return { limit: { perSecond, burst }, burst, rate: perSecond / 1_000, window: undefined, isQuota: false, most }
    }
    case "bare": {
      const burst = perMinute * (dimension === "requests" ? 5 / 60 : 0.05)
      const rate = (perMinute - burst) / 60_000
      return { limit: { perMinute }, burst, rate, window: perMinute, isQuota: false, most: perMinute }
    }
    case "sliding": {
      const burst = Math.ceil(perMinute * (0.1 + 0.8 * random()))
      const limit = { perMinute, burst, window: "sliding" } as const
      return { limit, burst, rate: (perMinute - burst) / 60_000, window: perMinute, isQuota: false, most: perMinute }
    }
    case "quota": {
      const total = Math.ceil(perMinute / 5)
      return { limit: { total }, burst: total, rate: 0, window: undefined, isQuota: true, most: total }
    }
  }
}
