/**
 * What waiting callers cost, beside other limiters: `npm run -s bench -- waiters [--rounds 5] [--most 100000]`.
 *
 * It measures the processor time to serve many callers on 10 permits, the memory of one waiter, and the processor time to
 * interrupt all waiters at once. Bottleneck takes part in the memory alone, because it needs 350 us for each of 100 callers.
 * Each contender has a process of its own, and they take turns (see `support/inTurns.ts`).
 */
import Bottleneck from "bottleneck"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as RateLimiter from "effect/persistence/RateLimiter"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Budget from "floodgate/Budget"
import { spawnSync } from "node:child_process"
import { cpus } from "node:os"
import pLimit from "p-limit"
import PQueue from "p-queue"
import { parseArgs } from "node:util"
import { thousands } from "../src/domain/words.ts"
import { inProcesses, inTurns, resultsOf, serveTurns, tableOf, timed } from "./support/inTurns.ts"

const permits = 10
const plenty = 1e12

/** Prepares n callers, and returns what lets them run to their end. */
type Case = (n: number) => Promise<() => Promise<unknown>> | (() => Promise<unknown>)
/** Returns the bytes that one of n waiters keeps alive. */
type Kept = (n: number) => Promise<number>

const keep = <A>(layer: Layer.Layer<A>): Promise<Context.Context<A>> =>
  Effect.runPromise(Layer.buildWithScope(layer, Scope.makeUnsafe()))

const tokens = { tokens: 100 }
const budget = (concurrency?: number) =>
  keep(Budget.layer({ limits: { tokens: { perSecond: plenty, burst: plenty } }, concurrency }))
const limiters = () => keep(RateLimiter.layer.pipe(Layer.provide(RateLimiter.layerStoreMemory)))
const bucket = { key: "key", limit: 1e9, window: "1 minute", algorithm: "token-bucket", tokens: 1 } as const
const nothing = async () => {}

// -----------------------------------------------------------------------------
// Many callers on few permits. Limiters of rates alone (limiter, rate-limiter-flexible, Effect's) have no permits.
// -----------------------------------------------------------------------------

const fibers = <E, R>(n: number, each: Effect.Effect<unknown, E, R>) =>
  Effect.forEach(Array.from({ length: n }), () => each, { concurrency: "unbounded", discard: true })

const all = (n: number, task: () => Promise<unknown>) => () => Promise.all(Array.from({ length: n }, task))

/** An event that fires when all fibers wait for it. */
const soon = Effect.gen(function* () {
  const gate = yield* Deferred.make<void>()
  yield* Effect.forkChild(Effect.andThen(Effect.yieldNow, Deferred.succeed(gate, undefined)))
  return Deferred.await(gate)
})

const onOneDeferred = (n: number, each: (event: Effect.Effect<void>) => Effect.Effect<void>) => () =>
  Effect.runPromise(Effect.flatMap(soon, (event) => fibers(n, each(event))))

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
    return () => Effect.runPromise(Effect.provide(held(n, call), context))
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
    return () => Effect.runPromise(Effect.provide(calls, context))
  },
  "effect Semaphore": (n) => {
    const calls = fibers(n, Semaphore.makeUnsafe(permits).withPermit(Effect.yieldNow))
    return () => Effect.runPromise(calls)
  },
  "p-limit": (n) => {
    const limit = pLimit(permits)
    return all(n, () => limit(nothing))
  },
  "p-queue": (n) => {
    const queue = new PQueue({ concurrency: permits })
    return all(n, () => queue.add(nothing))
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

const waiters: Record<string, Kept> = {
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

const waiting = (n: number, effect: Effect.Effect<unknown, unknown>) => {
  for (let i = 0; i < permits; i++) Effect.runFork(effect)
  const fibers = Array.from({ length: n }, () => Effect.runFork(effect))
  return () => Effect.runPromise(Fiber.interruptAll(fibers))
}

const cancelled: Record<string, Case> = {
  "fibers on one Deferred": (n) => waiting(n, Deferred.await(Deferred.makeUnsafe<void>())),
  floodgate: async (n) => {
    const context = await budget(permits)
    const call = Effect.provideContext(
      Budget.withReservation(tokens, () => Effect.never),
      context
    )
    const interrupt = waiting(n, call)
    return async () => {
      await interrupt()
      const { dimensions, inFlight, queued } = (
        await Effect.runPromise(Context.get(context, Budget.TokenBudget).status)
      ).pools.default!
      const missing = plenty - permits * tokens.tokens - dimensions.tokens!.level
      if (queued !== 0 || inFlight !== permits || missing > 0) throw new Error("tokens or permits were lost")
    }
  },
  "effect Semaphore": (n) => waiting(n, Semaphore.makeUnsafe(permits).withPermit(Effect.never))
}

// -----------------------------------------------------------------------------
// The run
// -----------------------------------------------------------------------------

const suites = { contended, idle, cancelled }
type Suite = keyof typeof suites

const [first, second, count] = process.argv.slice(2)
if (process.send !== undefined) {
  const [suite, size, name] = first!.split("|")
  const n = Number(size)
  // A turn of few callers would be too short to measure.
  const times = Math.ceil(10_000 / n)
  serveTurns(async () => {
    const runs = await Promise.all(Array.from({ length: times }, () => suites[suite as Suite][name!]!(n)))
    return timed(n * times, async () => {
      for (const run of runs) await run()
    })
  })
} else if (first === "waiters") {
  console.log(await waiters[second!]!(Number(count)))
  // The callers wait forever.
  process.exit()
} else {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "5" },
      least: { type: "string", default: "100" },
      most: { type: "string", default: "100000" }
    }
  })
  console.log(`Node ${process.version}, ${cpus().length} x ${cpus()[0]!.model.trim()}`)
  const rounds = Number(values.rounds)

  const compare = async (
    suite: Suite,
    n: number,
    title: string,
    leftOut: ReadonlyArray<string> = []
  ): Promise<void> => {
    const names = Object.keys(suites[suite]).filter((name) => !leftOut.includes(name))
    const { contenders, end } = inProcesses(import.meta.filename, names, (name) => `${suite}|${n}|${name}`)
    const measured = await inTurns(contenders, { rounds, warmups: n > 100_000 ? 0 : 2 })
    end()
    console.log(`\n${resultsOf(title, "caller", measured)}`)
  }

  // It walks its waiters at every release.
  const slow = ["effect Semaphore"]
  for (const n of [100, 10_000, 100_000, 1_000_000].filter(
    (n) => n <= Number(values.most) && n >= Number(values.least)
  )) {
    const leftOut = n > 10_000 ? slow : []
    await compare("contended", n, `${thousands(n)} callers on ${permits} permits`, leftOut)
  }
  await compare("idle", 100_000, `100,000 callers on ${permits} permits that do nothing`)
  await compare("cancelled", 100_000, "100,000 waiters interrupted at once")
  const bytesOf = (name: string): string => {
    const { stdout } = spawnSync(
      process.execPath,
      [...process.execArgv, import.meta.filename, "waiters", name, "100000"],
      {
        encoding: "utf8"
      }
    )
    return thousands(Math.round(Number(stdout)))
  }
  const rows = Object.keys(waiters).map((name) => [name, bytesOf(name)])
  console.log(`\n${tableOf(["one of 100,000 waiters", "bytes"], rows)}`)
}
