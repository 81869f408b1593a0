/**
 * The budget beside other limiters in one run: `npm run -s bench -- budget`. A figure is the best of three separate
 * processes, or the median of nine rounds in one process. The table marks what did not finish in time. Compare ratios, not
 * times.
 *
 * It measures calls per second when nothing waits, the time to serve many callers on 10 permits, the memory of one waiter,
 * and the time to interrupt all waiters at once.
 */
import Bottleneck from "bottleneck"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as RateLimiter from "effect/persistence/RateLimiter"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Budget from "floodgate/Budget"
import { RateLimiter as Limiter } from "limiter"
import { spawnSync } from "node:child_process"
import { cpus } from "node:os"
import pLimit from "p-limit"
import PQueue from "p-queue"
import { RateLimiterMemory } from "rate-limiter-flexible"

const permits = 10
const plenty = 1e12
const cutOffMillis = 30_000

/** Returns milliseconds, or bytes per waiter. */
type Case = (n: number) => Promise<number>

const clock = async (run: () => Promise<unknown>): Promise<number> => {
  const start = performance.now()
  await run()
  return performance.now() - start
}

const keep = <A>(layer: Layer.Layer<A>): Promise<Context.Context<A>> =>
  Effect.runPromise(Layer.buildWithScope(layer, Scope.makeUnsafe()))

const tokens = { tokens: 100 }
const budget = (concurrency?: number) =>
  keep(Budget.layer({ limits: { tokens: { perSecond: plenty, burst: plenty } }, concurrency }))
const limiters = () => keep(RateLimiter.layer.pipe(Layer.provide(RateLimiter.layerStoreMemory)))
const bucket = { key: "key", limit: 1e9, window: "1 minute", algorithm: "token-bucket", tokens: 1 } as const
const nothing = async () => {}

// -----------------------------------------------------------------------------
// Nothing waits
// -----------------------------------------------------------------------------

/** Constructs each call anew, as a program does for calls of different sizes. */
const repeat = <E, R>(n: number, call: (i: number) => Effect.Effect<unknown, E, R>) =>
  Effect.gen(function* () {
    for (let i = 0; i < n; i++) yield* call(i)
  })

const oneByOne = (n: number, task: () => Promise<unknown>): Promise<number> =>
  clock(async () => {
    for (let i = 0; i < n; i++) await task()
  })

const uncontended: Record<string, Case> = {
  "floodgate withReservation": async (n) => {
    const context = await budget()
    const calls = repeat(n, (i) => Budget.withReservation({ tokens: 1 + (i % 100) }, () => Effect.void))
    return clock(() => Effect.runPromise(Effect.provide(calls, context)))
  },
  "effect RateLimiter.consume": async (n) => {
    const context = await limiters()
    const calls = Effect.flatMap(RateLimiter.RateLimiter, (limiter) =>
      repeat(n, (i) => limiter.consume({ ...bucket, tokens: 1 + (i % 100) }))
    )
    return clock(() => Effect.runPromise(Effect.provide(calls, context)))
  },
  "floodgate consume, one effect run often": async (n) => {
    const context = await budget()
    const call = Budget.consume(1)
    return clock(() =>
      Effect.runPromise(
        Effect.provide(
          repeat(n, () => call),
          context
        )
      )
    )
  },
  "effect RateLimiter.consume, one effect run often": async (n) => {
    const context = await limiters()
    const calls = Effect.flatMap(RateLimiter.RateLimiter, (limiter) => {
      const call = limiter.consume(bucket)
      return repeat(n, () => call)
    })
    return clock(() => Effect.runPromise(Effect.provide(calls, context)))
  },
  "effect Semaphore.withPermit": (n) => {
    const semaphore = Semaphore.makeUnsafe(permits)
    const calls = repeat(n, () => semaphore.withPermit(Effect.void))
    return clock(() => Effect.runPromise(calls))
  },
  "p-limit": (n) => {
    const limit = pLimit(permits)
    return oneByOne(n, () => limit(nothing))
  },
  "p-queue": (n) => {
    const queue = new PQueue({ concurrency: permits })
    return oneByOne(n, () => queue.add(nothing))
  },
  bottleneck: (n) => {
    const limiter = new Bottleneck({ maxConcurrent: permits })
    return oneByOne(n, () => limiter.schedule(nothing))
  },
  limiter: (n) => {
    const limiter = new Limiter({ tokensPerInterval: plenty, interval: "second" })
    return oneByOne(n, () => limiter.removeTokens(1))
  },
  "rate-limiter-flexible": (n) => {
    const limiter = new RateLimiterMemory({ points: 1e9, duration: 60 })
    return oneByOne(n, () => limiter.consume("key", 1))
  }
}

// -----------------------------------------------------------------------------
// Many callers on few permits. Limiters of rates alone (limiter, rate-limiter-flexible, Effect's) have no permits.
// -----------------------------------------------------------------------------

const fibers = <E, R>(n: number, each: Effect.Effect<unknown, E, R>) =>
  Effect.forEach(Array.from({ length: n }), () => each, { concurrency: "unbounded", discard: true })

const all = (n: number, task: () => Promise<unknown>): Promise<number> =>
  clock(() => Promise.all(Array.from({ length: n }, task)))

/** An event that fires when all fibers wait for it. */
const soon = Effect.gen(function* () {
  const gate = yield* Deferred.make<void>()
  yield* Effect.forkChild(Effect.andThen(Effect.yieldNow, Deferred.succeed(gate, undefined)))
  return Deferred.await(gate)
})

const onOneDeferred = (n: number, each: (event: Effect.Effect<void>) => Effect.Effect<void>): Promise<number> =>
  clock(() => Effect.runPromise(Effect.flatMap(soon, (event) => fibers(n, each(event)))))

/** Callers without work find all permits taken, and continue when they are released. */
const held = (n: number, call: Effect.Effect<unknown, Budget.BudgetError, Budget.TokenBudget>) =>
  Effect.gen(function* () {
    const event = yield* soon
    const holder = Budget.withReservation(tokens, () => event)
    for (let i = 0; i < permits; i++) yield* Effect.forkChild(holder, { startImmediately: true })
    yield* fibers(n, call)
  })

const idle: Record<string, Case> = {
  /** The lower bound: fibers that wait for one event and end. */
  "fibers on one Deferred": (n) => onOneDeferred(n, (event) => event),
  floodgate: async (n) => {
    const context = await budget(permits)
    const call = Budget.withReservation(tokens, () => Effect.void)
    return clock(() => Effect.runPromise(Effect.provide(held(n, call), context)))
  }
}

const contended: Record<string, Case> = {
  /** The lower bound: the same fibers wait for one event and then do the same work. */
  "fibers on one Deferred": (n) => onOneDeferred(n, (event) => Effect.andThen(event, Effect.yieldNow)),
  floodgate: async (n) => {
    const context = await budget(permits)
    const calls = fibers(
      n,
      Budget.withReservation(tokens, () => Effect.yieldNow)
    )
    return clock(() => Effect.runPromise(Effect.provide(calls, context)))
  },
  "effect Semaphore": (n) => {
    const calls = fibers(n, Semaphore.makeUnsafe(permits).withPermit(Effect.yieldNow))
    return clock(() => Effect.runPromise(calls))
  },
  "p-limit": (n) => {
    const limit = pLimit(permits)
    return all(n, () => limit(nothing))
  },
  "p-queue": (n) => {
    const queue = new PQueue({ concurrency: permits })
    return all(n, () => queue.add(nothing))
  },
  bottleneck: (n) => {
    const limiter = new Bottleneck({ maxConcurrent: permits })
    return all(n, () => limiter.schedule(nothing))
  }
}

// -----------------------------------------------------------------------------
// What one waiter keeps alive, in bytes
// -----------------------------------------------------------------------------

const heap = async (n: number, wait: () => unknown): Promise<number> => {
  const kept: Array<unknown> = Array.from({ length: n })
  globalThis.gc!()
  const before = process.memoryUsage().heapUsed
  for (let i = 0; i < n; i++) kept[i] = wait()
  await new Promise((resolve) => setTimeout(resolve, 300))
  globalThis.gc!()
  return (process.memoryUsage().heapUsed - before) / kept.length
}

const heapOf = (n: number, effect: Effect.Effect<unknown, unknown>): Promise<number> => {
  const running: Array<unknown> = []
  for (let i = 0; i < permits; i++) running.push(Effect.runFork(effect))
  return heap(n, () => Effect.runFork(effect))
}

const never = () => new Promise<void>(() => {})

const waiters: Record<string, Case> = {
  "a fiber asleep": (n) => heap(n, () => Effect.runFork(Effect.sleep(1e9))),
  "floodgate, for tokens": async (n) => {
    const context = await keep(Budget.layer({ limits: { tokens: { perSecond: 0.001, burst: 100 } } }))
    return heapOf(
      n,
      Effect.provideContext(
        Budget.withReservation(tokens, () => Effect.void),
        context
      )
    )
  },
  "floodgate, for a permit": async (n) => {
    const context = await budget(permits)
    return heapOf(
      n,
      Effect.provideContext(
        Budget.withReservation(tokens, () => Effect.never),
        context
      )
    )
  },
  "effect RateLimiter": async (n) => {
    const context = await limiters()
    const limit = Effect.provideContext(RateLimiter.makeWithRateLimiter, context)
    const options = { ...bucket, limit: 1, onExceeded: "delay" } as const
    const withLimiter = await Effect.runPromise(limit)
    return heapOf(n, withLimiter(options)(Effect.void))
  },
  "effect Semaphore": (n) => heapOf(n, Semaphore.makeUnsafe(permits).withPermit(Effect.never)),
  "p-limit": (n) => {
    const limit = pLimit(permits)
    for (let i = 0; i < permits; i++) void limit(never)
    return heap(n, () => limit(never))
  },
  "p-queue": (n) => {
    const queue = new PQueue({ concurrency: permits })
    for (let i = 0; i < permits; i++) void queue.add(never)
    return heap(n, () => queue.add(never))
  },
  bottleneck: (n) => {
    const limiter = new Bottleneck({ maxConcurrent: permits })
    for (let i = 0; i < permits; i++) void limiter.schedule(never)
    return heap(n, () => limiter.schedule(never))
  }
}

// -----------------------------------------------------------------------------
// All waiters are interrupted at once
// -----------------------------------------------------------------------------

const interruptAll = async (n: number, effect: Effect.Effect<unknown, unknown>): Promise<number> => {
  for (let i = 0; i < permits; i++) Effect.runFork(effect)
  const waiting = Array.from({ length: n }, () => Effect.runFork(effect))
  return clock(() => Effect.runPromise(Fiber.interruptAll(waiting)))
}

const cancelled: Record<string, Case> = {
  "fibers on one Deferred": (n) => interruptAll(n, Deferred.await(Deferred.makeUnsafe<void>())),
  floodgate: async (n) => {
    const context = await budget(permits)
    const millis = await interruptAll(
      n,
      Effect.provideContext(
        Budget.withReservation(tokens, () => Effect.never),
        context
      )
    )
    const status = Effect.flatMap(Budget.TokenBudget, (budget) => budget.status)
    const { dimensions, inFlight, queued } = (await Effect.runPromise(Effect.provideContext(status, context))).pools
      .default!
    const missing = plenty - permits * tokens.tokens - dimensions.tokens!.level
    if (queued !== 0 || inFlight !== permits || missing > 0) throw new Error("tokens or permits were lost")
    return millis
  },
  "effect Semaphore": (n) => interruptAll(n, Semaphore.makeUnsafe(permits).withPermit(Effect.never))
}

// -----------------------------------------------------------------------------
// The run
// -----------------------------------------------------------------------------

const suites = { uncontended, contended, idle, waiters, cancelled }
type Suite = keyof typeof suites

const [suite, name, count] = process.argv.slice(2)
if (suite !== undefined && name === "together") {
  // All in one process, in turns, because in a real program other code also invalidates the compiler's assumptions.
  const times = new Map<string, Array<number>>()
  for (let round = 0; round < 11; round++) {
    for (const [one, run] of Object.entries(suites[suite as Suite])) {
      if (one === "bottleneck") continue
      globalThis.gc!()
      const millis = await run(Number(count))
      // The first rounds warm up the compiler.
      if (round > 1) times.set(one, [...(times.get(one) ?? []), millis])
    }
  }
  const median = (values: ReadonlyArray<number>) => values.toSorted((a, b) => a - b)[values.length >> 1]!
  console.log(JSON.stringify([...times].map(([one, values]) => [one, median(values)])))
  process.exit(0)
}
if (suite !== undefined && name !== undefined) {
  const run = suites[suite as Suite][name]!
  // Warm up, to measure the work and not the compiler.
  if (suite !== "waiters") for (let i = 0; i < 3; i++) await run(2_000)
  console.log(await run(Number(count)))
  process.exit(0)
}

/** The output of a separate process, if it ends in time. */
const child = (...args: ReadonlyArray<string>): string | undefined => {
  const { status, stdout } = spawnSync(
    process.execPath,
    [...process.execArgv, "--max-old-space-size=12000", import.meta.filename, ...args],
    { timeout: cutOffMillis, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] }
  )
  return status === 0 ? stdout : undefined
}

const measure = (of: Suite, name: string, n: number, rounds: number): number | undefined => {
  let best: number | undefined
  for (let i = 0; i < rounds; i++) {
    const printed = child(of, name, `${n}`)
    if (printed === undefined) return best
    best = Math.min(best ?? Infinity, Number(printed))
  }
  return best
}

const short = (value: number): string => (value >= 100 ? Math.round(value).toLocaleString("en-US") : value.toFixed(2))

/** Milliseconds by name, all in one process. */
const together = (of: Suite, n: number): ReadonlyMap<string, number> =>
  new Map(JSON.parse(child(of, "together", `${n}`) ?? "[]"))

const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): void => {
  console.log(`\n| ${head.join(" | ")} |`)
  console.log(`|${head.map((_, i) => (i === 0 ? "---" : "---:")).join("|")}|`)
  for (const row of rows) console.log(`| ${row.join(" | ")} |`)
}

const ratio = (value: number | undefined, base: number | undefined): string =>
  value === undefined || base === undefined ? "" : (value / base).toFixed(2)

console.log(`Node ${process.version}, ${cpus().length} x ${cpus()[0]!.model.trim()}`)

{
  const n = 100_000
  const oneProcess = together("uncontended", n)
  const alone = new Map(Object.keys(uncontended).map((name) => [name, measure("uncontended", name, n, 3)]))
  const rate = (millis: number | undefined): string =>
    millis === undefined ? "cut off" : (n / millis / 1_000).toFixed(2)
  const [first] = Object.keys(uncontended)
  table(
    ["nothing waits, million calls a second", "in one process", "to floodgate", "alone", "to floodgate"],
    Object.keys(uncontended).map((name) => [
      name,
      rate(oneProcess.get(name)),
      ratio(oneProcess.get(first!), oneProcess.get(name)),
      rate(alone.get(name)),
      ratio(alone.get(first!), alone.get(name))
    ])
  )
}
{
  const counts = [100, 10_000, 100_000, 1_000_000]
  const floor = counts.map((n) => measure("contended", "fibers on one Deferred", n, n > 100_000 ? 1 : 3))
  table(
    [`callers on ${permits} permits, ms (to the floor)`, ...counts.map((n) => n.toLocaleString("en-US"))],
    Object.keys(contended).map((name, i) => [
      name,
      ...counts.map((n, k) => {
        const millis = i === 0 ? floor[k] : measure("contended", name, n, n > 100_000 ? 1 : 3)
        return millis === undefined ? "cut off" : `${short(millis)} (${ratio(millis, floor[k])})`
      })
    ])
  )
}
{
  const millis = together("idle", 100_000)
  const [floor] = millis.values()
  table(
    [`100,000 callers on ${permits} permits that do nothing`, "ms", "to the floor"],
    [...millis].map(([name, value]) => [name, short(value), ratio(value, floor)])
  )
}
{
  const bytes = Object.keys(waiters).map((name) => [name, measure("waiters", name, 100_000, 1)] as const)
  table(
    ["one of 100,000 waiters", "bytes"],
    bytes.map(([name, value]) => [name, value === undefined ? "cut off" : short(value)])
  )
}
{
  const millis = Object.keys(cancelled).map((name) => [name, measure("cancelled", name, 100_000, 3)] as const)
  table(
    ["100,000 waiters interrupted at once", "ms"],
    millis.map(([name, value]) => [name, value === undefined ? "cut off" : short(value)])
  )
}
