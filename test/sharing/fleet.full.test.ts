/**
 * Laws of a budget that processes share, in simulated time. Judges know the limit and the log of calls, and nothing else.
 * A number in the name of a test is that of a fault which an adversarial trial found.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import type * as Budget from "floodgate/Budget"
import { countedBy } from "../support/budget.ts"
import * as State from "../../src/sharing/state.ts"
import * as Text from "../../src/sharing/text.ts"
import { keyOf } from "../../packages/redis/src/store.ts"
import * as World from "./world.ts"
import { sized, some } from "../support/size.ts"

const redis = await World.redis()
const limit = { perSecond: 100_000, burst: 200_000 }
/** Where the pool is in Redis. */
const key = keyOf("world", State.keyOf("default"))

const play = World.player(redis, "fleet")

/** The law of the pool in Redis, if there is one. */
const stored = () => {
  const text = redis.send(["HGET", key, "value"]) as string | null
  return text === null ? undefined : Text.decode(text).law
}

const names = (count: number): ReadonlyArray<string> => Array.from({ length: count }, (_, n) => `p${n}`)

const times = <A, E>(count: number, effect: Effect.Effect<A, E>): Effect.Effect<void, E> =>
  Effect.forEach(Array.from({ length: count }), () => effect, { discard: true })

/** Agents that make one call after another. After a refusal they wait a second. */
const busy = (
  process: World.Process,
  agents: number,
  call: World.Call
): Effect.Effect<ReadonlyArray<Fiber.Fiber<void>>> =>
  Effect.forEach(Array.from({ length: agents }), (_, n) => {
    const one = process.call({ ...call, options: { agent: `${process.name}.${n}`, ...call.options } })
    return Effect.forkDetach(Effect.forever(Effect.catch(one, () => Effect.sleep(1_000))))
  })

const sumOf = (log: ReadonlyArray<World.Entry>): number => log.reduce((sum, { amounts }) => sum + amounts.tokens!, 0)

/** The calls that a process began from one time to another. */
const began = (world: World.World, process: string, from: number, to: number): number =>
  world.log.filter((entry) => entry.process === process && entry.at >= from && entry.at < to).length

const stop = (fleet: ReadonlyArray<World.Process>): Effect.Effect<void> =>
  Effect.forEach(fleet, ({ close }) => close, { discard: true })

/** Processes with busy agents that share a budget for a time. */
const contest = (processes: number, options: Budget.Options, agents: number, call: World.Call, millis: number) =>
  play((world) =>
    Effect.gen(function* () {
      const fleet = yield* Effect.forEach(names(processes), (name) => world.start(name, options))
      for (const process of fleet) yield* busy(process, agents, call)
      yield* Effect.sleep(millis)
      yield* stop(fleet)
      return world
    })
  )

// -----------------------------------------------------------------------------
// Without faults
// -----------------------------------------------------------------------------

/** The same 96 agents of six calls each, however many processes they are in. */
const job = (processes: number) =>
  play((world) =>
    Effect.gen(function* () {
      const fleet = yield* Effect.forEach(names(processes), (name) => world.start(name, { limits: { tokens: limit } }))
      const agent = (process: World.Process, n: number) =>
        times(
          6,
          Effect.flatMap(Random.nextIntBetween(1_000, 9_000), (tokens) =>
            process.call({ estimate: { tokens }, millis: 100, options: { agent: `a${n}` } })
          )
        )
      const agents = Array.from({ length: 96 }, (_, n) => agent(fleet[n % processes]!, n))
      yield* Effect.all(agents, { concurrency: "unbounded", discard: true })
      yield* stop(fleet)
      return world
    })
  )

describe("a fleet", () => {
  it("is as fast as one process, is fair, and never exceeds the limit", () => {
    for (const count of sized([8], [1, 2, 8])) {
      const { log, requests } = job(count)
      const start = log[0]!.at
      const span = log.at(-1)!.at - start
      const least = (1_000 * (sumOf(log) - limit.burst)) / limit.perSecond
      // While all are busy: after the first burst, and before some have finished.
      const middle = log.filter(({ at }) => at > start + span * 0.1 && at < start + span * 0.85)
      const shares = Object.values(Object.groupBy(middle, ({ process }) => process)).map((each) => sumOf(each!))
      assert.strictEqual(log.length, 576)
      assert.strictEqual(World.excessOf(log, "tokens", limit), 0, `${count} processes exceed the limit`)
      assert.isAtMost(span / least, 1.01, `${count} processes leave something unused`)
      assert.isAtLeast(World.jain(shares), 0.98, `${count} processes share unfairly`)
      if (count === 1)
        assert.isAtMost(requests() / log.length, 1.1, "one process asks the store once a call at the most")
    }
  })

  it("uses a small bucket although processes are often suspended for as long as it takes to refill", () => {
    for (const processes of [4, 16]) {
      const small = { perSecond: 200, burst: 20 }
      const { log } = play((world) =>
        Effect.gen(function* () {
          const fleet = yield* Effect.forEach(names(processes), (name) =>
            world.start(name, { limits: { requests: small } })
          )
          for (const process of fleet) yield* busy(process, 4, { estimate: { tokens: 1 }, millis: 0 })
          // While nothing is known of the provider, the calls increase slowly.
          yield* Effect.sleep(5_000)
          for (let turn = 0; turn < 15; turn++) {
            fleet[(7 * turn) % processes]!.freeze(100)
            yield* Effect.sleep(200)
          }
          yield* stop(fleet)
          return world
        })
      )
      assert.strictEqual(World.excessOf(log, "requests", small), 0)
      const last = log.filter(({ at }) => at > log.at(-1)!.at - 3_000)
      // While commits may take 150 ms, no more than 133 calls a second are safe: a bucket in that time.
      assert.isAtLeast(last.length, 0.55 * 3 * small.perSecond, `${processes} processes leave something unused`)
    }
  })

  it("counts no millisecond twice, however fast and many the commits are", () => {
    const small = { perSecond: 200, burst: 20 }
    const { log } = play((world) =>
      Effect.gen(function* () {
        const network = { ...World.calm, least: 0.1, most: 0.4 }
        const start = (name: string) => world.start(name, { limits: { requests: small } }, { network })
        const fleet = yield* Effect.forEach(names(4), start)
        for (const process of fleet) yield* busy(process, 4, { estimate: { tokens: 1 }, millis: 0 })
        yield* Effect.sleep(10_000)
        yield* stop(fleet)
        return world
      })
    )
    assert.strictEqual(World.excessOf(log, "requests", small), 0)
    const last = log.filter(({ at }) => at > log.at(-1)!.at - 3_000)
    assert.isAtLeast(last.length, 0.98 * 3 * small.perSecond)
  })

  it("never has more calls in flight than the concurrency, and no fewer for long", () => {
    const world = contest(3, { concurrency: 4 }, 6, { estimate: { tokens: 1 }, millis: 500 }, 20_000)
    assert.strictEqual(world.peak(), 4)
    // Four places of half a second each: 160 calls. A place that one process leaves, another one has to learn of.
    assert.isAtLeast(world.log.length, 0.9 * 160)
    for (const name of names(3)) assert.isAtLeast(began(world, name, 0, 20_000), 40)
  })

  it("serves the higher priority first, in whichever process it waits", () => {
    const order = play((world) =>
      Effect.gen(function* () {
        const tokens = { perSecond: 1_000, burst: 1_000 }
        const [a, b] = yield* Effect.forEach(names(2), (name) => world.start(name, { limits: { tokens } }))
        yield* a!.call({ estimate: { tokens: 1_000 }, millis: 1 })
        const low = yield* Effect.forkDetach(times(4, a!.call({ estimate: { tokens: 500 }, millis: 1 })))
        yield* Effect.sleep(100)
        yield* times(3, b!.call({ estimate: { tokens: 500 }, millis: 1, options: { priority: 1 } }))
        yield* Fiber.join(low)
        yield* stop([a!, b!])
        return world.log.slice(1).map(({ process }) => process)
      })
    )
    // One call may have been admitted before; then come the three of the higher priority.
    assert.deepStrictEqual(order.slice(-3), ["p0", "p0", "p0"])
    assert.strictEqual(order.slice(0, 4).filter((name) => name === "p1").length, 3)
  })

  it("spends a quota once, and refuses what it no longer holds", () => {
    const [world, refused] = play((world) =>
      Effect.gen(function* () {
        const limits = { requests: { total: 25 } }
        const fleet = yield* Effect.forEach(names(3), (name) => world.start(name, { limits }))
        const refused: Array<string> = []
        const call = (process: World.Process) =>
          Effect.catch(process.call({ estimate: {}, millis: 50 }), ({ reason }) =>
            Effect.sync(() => void refused.push(reason._tag))
          )
        yield* Effect.forEach(fleet, (process) => times(10, call(process)), { concurrency: "unbounded" })
        yield* stop(fleet)
        return [world, refused] as const
      })
    )
    assert.strictEqual(world.log.length, 25)
    assert.deepStrictEqual(
      refused,
      Array.from({ length: 5 }, () => "QuotaExhausted")
    )
  })

  it("never exceeds the limit by what refills while a call of the burst's size is sent", () => {
    const slow = { perSecond: 10_000, burst: 10_000 }
    const world = play((world) =>
      Effect.gen(function* () {
        const network = { least: 0.1, most: 200, lost: 0, doubled: 0 }
        const fleet = yield* Effect.forEach(names(3), (name) =>
          world.start(name, { limits: { tokens: slow } }, { network })
        )
        for (const [n, process] of fleet.entries()) {
          yield* busy(process, 2, { estimate: { tokens: n === 0 ? 10_000 : 300 }, millis: 10 })
        }
        yield* Effect.sleep(60_000)
        yield* stop(fleet)
        return world
      })
    )
    assert.closeTo(World.excessOf(world.log, "tokens", slow), 0, 1e-6)
  })

  it("serves a call that needs the whole bucket among small ones", () => {
    const world = play((world) =>
      Effect.gen(function* () {
        const fleet = yield* Effect.forEach(names(3), (name) =>
          world.start(name, { limits: { tokens: { perSecond: 1_000, burst: 3_000 } } })
        )
        for (const [n, process] of fleet.entries()) {
          yield* busy(process, 2, { estimate: { tokens: n === 0 ? 4_000 : 200 }, millis: 50 })
        }
        yield* Effect.sleep(120_000)
        yield* stop(fleet)
        return world
      })
    )
    const got = names(3).map((name) => sumOf(world.log.filter(({ process }) => process === name)))
    assert.isAtLeast(World.jain(got), 0.9, got.join(", "))
  })

  it("weighs a process by its callers: being many jobs gives nothing in another process either (law 17)", () => {
    const log = play((world) =>
      Effect.gen(function* () {
        const limits = { tokens: { perSecond: 10_000, burst: 1_000 } }
        const [a, b] = yield* Effect.forEach(names(2), (name) => world.start(name, { limits }))
        const call = { estimate: { tokens: 100 }, millis: 5 }
        // One caller, each of whose calls is of another job.
        for (let n = 0; n < 40; n++) {
          let made = 0
          const one = Effect.suspend(() =>
            a!.call({ ...call, options: { caller: "many", job: `${n} ${made++}`, agent: `many ${n}` } })
          )
          yield* Effect.forkDetach(Effect.forever(Effect.ignore(one)))
        }
        yield* busy(b!, 3, { ...call, options: { caller: "one", job: "only" } })
        yield* Effect.sleep(30_000)
        yield* stop([a!, b!])
        return world.log
      })
    )
    const shares = names(2).map((name) => sumOf(log.filter(({ process }) => process === name)))
    assert.closeTo(shares[0]! / (shares[0]! + shares[1]!), 0.5, 0.03, shares.join())
  })

  it("weighs a process by its jobs: a job in two processes counts at most twice (law 17)", () => {
    const log = play((world) =>
      Effect.gen(function* () {
        const limits = { tokens: { perSecond: 10_000, burst: 1_000 } }
        const [a, b] = yield* Effect.forEach(names(2), (name) => world.start(name, { limits }))
        const call = { estimate: { tokens: 100 }, millis: 5 }
        const of = (process: World.Process, job: string, agents: number) =>
          Effect.forEach(Array.from({ length: agents }), (_, n) => {
            const one = process.call({ ...call, options: { job, agent: `${job}.${n}` } })
            return Effect.forkDetach(Effect.forever(Effect.ignore(one)))
          })
        yield* of(a!, "both", 20)
        yield* of(b!, "both", 20)
        yield* of(b!, "one", 3)
        yield* Effect.sleep(30_000)
        yield* stop([a!, b!])
        return world.log
      })
    )
    const both = sumOf(log.filter(({ agent }) => agent.startsWith("both")))
    assert.closeTo(both / sumOf(log), 2 / 3, 0.03)
  })

  it("shares places fairly in the long run", () => {
    const world = contest(4, { concurrency: 2 }, 3, { estimate: { tokens: 4_000 }, millis: 3_000 }, 120_000)
    assert.isAtLeast(World.jain(names(4).map((name) => began(world, name, 0, 120_000))), 0.98)
  })

  it("refills while no process runs", () => {
    const [first, second] = play((world) =>
      Effect.gen(function* () {
        const tokens = { perSecond: 10, burst: 1_000 }
        const visit = (name: string) =>
          Effect.gen(function* () {
            const from = yield* Clock.currentTimeMillis
            const process = yield* world.start(name, { limits: { tokens } })
            yield* process.call({ estimate: { tokens: 1_000 }, millis: 1 })
            yield* process.close
            return (yield* Clock.currentTimeMillis) - from
          })
        const first = yield* visit("p0")
        yield* Effect.sleep(98_000)
        return [first, yield* visit("p1")]
      })
    )
    assert.isAtMost(first!, 10)
    assert.isAtMost(second!, 2_100)
    assert.isAtLeast(second!, 1_900)
  })

  it("applies the limits that were set last, in every process", () => {
    const world = play((world) =>
      Effect.gen(function* () {
        const tokens = { perSecond: 1_000, burst: 1_000 }
        const fleet = yield* Effect.forEach(names(2), (name) => world.start(name, { limits: { tokens } }))
        for (const process of fleet) yield* busy(process, 3, { estimate: { tokens: 100 }, millis: 20 })
        yield* Effect.sleep(5_000)
        yield* fleet[0]!.budget.resize({ limits: { tokens: { perSecond: 4_000, burst: 1_000 } } })
        yield* Effect.sleep(5_000)
        yield* stop(fleet)
        return world
      })
    )
    const of = (from: number, to: number): number =>
      names(2).reduce((sum, name) => sum + began(world, name, from, to), 0)
    assert.isAtMost(of(1_500, 5_000), 35 + 10)
    assert.isAtLeast(of(6_000, 10_000), 150)
    for (const name of names(2)) assert.isAtLeast(began(world, name, 6_000, 10_000), 60)
  })

  it("keeps the limits that were set while processes start with others, or say how their provider counts", () => {
    const asBucket = countedBy({ counting: { tokens: "bucket" } })
    for (const how of [{}, asBucket]) {
      const capacities = play((world) =>
        Effect.gen(function* () {
          const options = { limits: { tokens: { perMinute: 60_000 } } }
          const call = { estimate: { tokens: 10 }, millis: 1, options: how }
          const first = yield* world.start("p0", options)
          yield* first.call(call)
          yield* first.budget.resize({ limits: { tokens: { perMinute: 6_000 } } })
          yield* Effect.sleep(2_000)
          yield* first.call(call)
          const second = yield* world.start("p1", options)
          yield* second.call(call)
          yield* Effect.sleep(5_000)
          yield* first.call(call)
          yield* Effect.sleep(1_000)
          const all = yield* Effect.forEach([first, second], ({ budget }) => budget.status)
          yield* stop([first, second])
          return all.map(({ pools }) => pools.default!.dimensions.tokens!.perSecond)
        })
      )
      for (const perSecond of capacities) assert.isAtMost(perSecond, 100, `counting ${JSON.stringify(how)}`)
    }
  })

  it("applies a share that a later process is started with", () => {
    const rates = play((world) =>
      Effect.gen(function* () {
        const start = (name: string, share: number) =>
          world.start(name, { limits: { tokens: { perMinute: 60_000 / share, share } } })
        const fleet = [yield* start("p0", 1)]
        yield* fleet[0]!.call({ estimate: { tokens: 10 }, millis: 1 })
        fleet.push(yield* start("p1", 0.5))
        yield* fleet[1]!.call({ estimate: { tokens: 10 }, millis: 1 })
        const { share } = stored()!.caps.tokens!.rule
        yield* stop(fleet)
        return share
      })
    )
    assert.strictEqual(rates, 0.5)
  })

  it("charges nothing twice when a process opens a closed pool again", () => {
    const waits = play((world) =>
      Effect.gen(function* () {
        const options = { limits: { tokens: { perMinute: 60_000, window: "bucket" } }, maxPools: 50 } as const
        const [a, b] = yield* Effect.forEach(["a", "b"], (name) => world.start(name, options))
        const use = (process: World.Process, account: string, tokens: number) =>
          process.call({ estimate: { tokens }, millis: 10, options: { account } })
        for (let i = 0; i < 20; i++) {
          yield* use(a!, "busy", 20_000)
          yield* Effect.sleep("30 seconds")
        }
        yield* use(b!, "busy", 1_000)
        yield* Effect.sleep("15 minutes")
        for (let i = 0; i < 51; i++) yield* use(a!, `other${i}`, 1)
        yield* Effect.sleep("1 minute")
        yield* use(a!, "busy", 1_000)
        yield* Effect.sleep("2 seconds")
        const from = yield* Clock.currentTimeMillis
        yield* use(b!, "busy", 1_000)
        const millis = (yield* Clock.currentTimeMillis) - from
        yield* stop([a!, b!])
        return millis
      })
    )
    assert.isAtMost(waits, 1_000)
  })

  it("learns together: what headers tell one process applies to all", () => {
    const world = play((world) =>
      Effect.gen(function* () {
        const fleet = yield* Effect.forEach(names(3), (name) => world.start(name, {}))
        for (const process of fleet) yield* busy(process, 2, { estimate: { tokens: 1 }, millis: 100 })
        yield* Effect.sleep(5_000)
        yield* fleet[1]!.budget.pause({ duration: "4 seconds", reason: "rateLimit" })
        yield* Effect.sleep(6_000)
        yield* stop(fleet)
        return world
      })
    )
    // Calls that were admitted at that moment are still sent. Then none is sent until the pause is over.
    for (const name of names(3)) {
      assert.strictEqual(began(world, name, 5_300, 8_900), 0)
      assert.isAbove(began(world, name, 9_000, 11_000), 0)
    }
  })
})

// -----------------------------------------------------------------------------
// When processes die
// -----------------------------------------------------------------------------

describe("a process whose machine has been up for a day longer", () => {
  const day = 86_400_000
  for (const [what, act] of [
    ["sets limits", (budget) => budget.resize({ limits: { tokens: limit }, concurrency: 3 })],
    ["is paused", (budget) => budget.pause({ duration: "1 second", reason: "overload" })],
    [
      "learns of limits",
      (budget) => budget.observe({ dimensions: { tokens: { limit: 6_000_000, remaining: 100_000 } } })
    ]
  ] satisfies ReadonlyArray<readonly [string, (budget: Budget.TokenBudget["Service"]) => Effect.Effect<unknown>]>) {
    it(`stops no other process when it ${what} before it has reached the store`, () => {
      const millis = play((world) =>
        Effect.gen(function* () {
          const first = yield* world.start("p0", { limits: { tokens: limit } })
          const call = { estimate: { tokens: limit.burst }, millis: 1 }
          yield* first.call(call)
          const second = yield* world.start("p1", { limits: { tokens: limit } }, { skewMillis: day })
          yield* act(second.budget)
          yield* Effect.sleep(1_000)
          const from = yield* Clock.currentTimeMillis
          yield* Effect.forEach([second, first], (process) => process.call(call))
          const to = yield* Clock.currentTimeMillis
          yield* stop([first, second])
          return to - from
        })
      )
      assert.isAtMost(millis, 6_000)
    })
  }
})

describe("a process that dies", () => {
  const dies = (lost: "keep" | "refund") =>
    play((world) =>
      Effect.gen(function* () {
        const tokens = { perSecond: 1_000, burst: 50_000 }
        const start = (name: string) =>
          world.start(name, { limits: { tokens }, concurrency: 2 }, { lease: "5 seconds", lost })
        const [a, b] = yield* Effect.forEach(names(2), start)
        yield* busy(a!, 2, { estimate: { tokens: 20_000 }, millis: 1e6 })
        yield* Effect.sleep(1_000)
        const next = yield* Effect.forkDetach(b!.call({ estimate: { tokens: 1 }, millis: 1 }))
        yield* Effect.sleep(1_000)
        yield* a!.crash
        yield* Fiber.join(next)
        const at = yield* Clock.currentTimeMillis
        const { pools } = yield* b!.budget.status
        yield* b!.close
        return { at, left: pools.default!.dimensions.tokens!.level }
      })
    )

  it("frees its places when its lease is over", () => {
    const { at } = dies("keep")
    assert.isAtLeast(at, 2_000 + 5_000 * 0.75)
    assert.isAtMost(at, 2_000 + 5_000 + 2_000)
  })
  it("keeps or refunds what its calls hold, as the options say", () => {
    assert.isAtMost(dies("keep").left, 20_000)
    assert.isAtLeast(dies("refund").left, 49_000)
  })

  it("frees its part of the places, also if it was started without a limit of them", () => {
    const calls = (concurrency: number) =>
      play((world) =>
        Effect.gen(function* () {
          const sharing = { whenAway: "degrade" } as const
          const old = yield* world.start("p0", { limits: { tokens: limit }, concurrency }, sharing)
          yield* old.call({ estimate: { tokens: 1 }, millis: 1 })
          yield* Effect.sleep(2_000)
          yield* old.crash
          const process = yield* world.start("p1", { limits: { tokens: limit }, concurrency: 90 }, sharing)
          yield* busy(process, 60, { estimate: { tokens: 10 }, millis: 1_000 })
          yield* Effect.sleep(sized(20_000, 60_000))
          yield* process.close
          return began(world, "p1", 5_000, sized(20_000, 60_000))
        })
      )
    assert.isAtLeast(calls(Infinity), 0.9 * calls(90))
  })

  it("is forgotten: hundreds of ended processes leave nothing behind", () => {
    const size = play((world) =>
      Effect.gen(function* () {
        const one = (name: string) =>
          Effect.gen(function* () {
            const process = yield* world.start(name, { limits: { tokens: limit } })
            yield* process.call({ estimate: { tokens: 10 }, millis: 10 })
            yield* process.close
            yield* Effect.sleep(1_000)
          })
        yield* Effect.forEach(names(sized(100, 300)), one, { discard: true })
        return (redis.send(["HGET", key, "value"]) as string | null)?.length ?? -1
      })
    )
    assert.isAbove(size, 0)
    assert.isBelow(size, 20_000)
  })
})

// -----------------------------------------------------------------------------
// When the store cannot be reached
// -----------------------------------------------------------------------------

describe("while the store is away", () => {
  /** A store that does not answer, or that refuses to write, like a replica. */
  type Way = "down" | "readOnly"

  const setAway = (world: World.World, way: Way, isAway: boolean): void => {
    if (way === "down") world.isDown = isAway
    else world.redis.setReadOnly(isAway)
  }

  /** Two processes whose permits are all in use, and a store that cannot be reached from 10 s to 18 s. */
  const outage = (
    whenAway: NonNullable<World.ProcessOptions["whenAway"]>,
    concurrency: number,
    processes = 2,
    way: Way = "down"
  ) =>
    play((world) =>
      Effect.gen(function* () {
        const start = (name: string) => world.start(name, { concurrency, limits: { tokens: limit } }, { whenAway })
        const fleet = yield* Effect.forEach(names(processes), start)
        for (const process of fleet) yield* busy(process, 6, { estimate: { tokens: 1_000 }, millis: 300 })
        yield* Effect.sleep(10_000)
        setAway(world, way, true)
        yield* Effect.sleep(8_000)
        setAway(world, way, false)
        yield* Effect.sleep(7_000)
        yield* stop(fleet)
        return world
      })
    )

  it("continues in degraded mode with all permits in use (1)", () => {
    const world = outage("degrade", 4)
    for (const name of names(2)) {
      const before = began(world, name, 2_000, 10_000)
      assert.isAtLeast(began(world, name, 12_000, 18_000), 0.4 * before * (6 / 8), `${name} in the outage`)
      assert.isAtLeast(began(world, name, 20_000, 25_000), 0.8 * before * (5 / 8), `${name} afterwards`)
    }
  })

  it("frees the places of calls that were in flight when the store failed, when they end", () => {
    const world = play((world) =>
      Effect.gen(function* () {
        const options = { concurrency: 8, limits: { tokens: limit } }
        const fleet = yield* Effect.forEach(names(2), (name) => world.start(name, options, { whenAway: "degrade" }))
        for (const process of fleet) yield* busy(process, 6, { estimate: { tokens: 100 }, millis: 3_000 })
        yield* Effect.sleep(10_000)
        world.isDown = true
        yield* Effect.sleep(20_000)
        yield* stop(fleet)
        return world
      })
    )
    for (const name of names(2)) assert.isAtLeast(began(world, name, 15_000, 30_000), 8, name)
  })

  it("continues if the store can be read but not written", () => {
    const world = outage("degrade", 4, 2, "readOnly")
    for (const name of names(2)) {
      const before = began(world, name, 2_000, 10_000)
      assert.isAtLeast(began(world, name, 12_000, 18_000), 0.15 * before * (6 / 8), `${name} in the outage`)
      assert.isAtLeast(began(world, name, 20_000, 25_000), 0.8 * before * (5 / 8), `${name} afterwards`)
    }
  })

  it("continues in a process that was idle, without writing to the store", () => {
    const [requests, reason, millis] = play((world) =>
      Effect.gen(function* () {
        const start = (name: string) => world.start(name, { limits: { tokens: limit } }, { whenAway: "degrade" })
        const fleet = yield* Effect.forEach(names(8), start)
        const call = { estimate: { tokens: 1_000 }, millis: 300 }
        for (const process of fleet) yield* process.call(call)
        yield* Effect.sleep("2 minutes")
        const before = world.requests()
        yield* Effect.sleep("10 minutes")
        const requests = world.requests() - before
        world.isDown = true
        const from = yield* Clock.currentTimeMillis
        const exit = yield* Effect.exit(fleet[3]!.call(call))
        const millis = (yield* Clock.currentTimeMillis) - from
        yield* stop(fleet)
        return [requests, exit._tag, millis] as const
      })
    )
    // A commit every quarter of a lease, and another one after a conflict.
    assert.isAtMost(requests / (8 * 600), 0.5)
    assert.strictEqual(reason, "Success")
    assert.isAtMost(millis, 21_000)
  })

  it("never has more calls in flight than the limit, with any number of processes (9)", () => {
    // Calls that were in flight when the store failed have ended by then.
    const world = outage("degrade", 2, 5)
    const during = world.log.filter(({ at }) => at > 12_000 && at < 18_000)
    assert.isAtLeast(during.length, 20)
    for (const { at } of during) {
      assert.isAtMost(during.filter((each) => each.at <= at && each.at + 300 > at).length, 2)
    }
  })

  it("waits or fails, as the options say", () => {
    const waits = outage({ wait: "30 seconds" }, 4)
    for (const name of names(2)) {
      assert.strictEqual(began(waits, name, 12_500, 18_000), 0)
      assert.isAtLeast(began(waits, name, 19_000, 25_000), 20)
    }
    const fails = outage("fail", 4)
    for (const name of names(2)) {
      assert.strictEqual(began(fails, name, 12_500, 18_000), 0)
      assert.isAtLeast(began(fails, name, 21_000, 25_000), 10)
    }
  })

  const refusals = (
    options: World.ProcessOptions,
    budget: Budget.Options,
    call: World.Call,
    downMillis: number,
    way: Way = "down"
  ) =>
    play((world) =>
      Effect.gen(function* () {
        const process = yield* world.start("p0", budget, options)
        yield* process.call({ estimate: { tokens: 1 }, millis: 1 })
        setAway(world, way, true)
        yield* Effect.sleep(downMillis)
        const from = yield* Clock.currentTimeMillis
        const error = yield* Effect.flip(Effect.timeout(process.call(call), "10 minutes"))
        const to = yield* Clock.currentTimeMillis
        yield* process.close
        return { reason: error._tag === "TimeoutError" ? error : error.reason, millis: to - from }
      })
    )

  it("fails with the reason after the time that it may wait", () => {
    const call = { estimate: { tokens: 1 }, millis: 1 }
    const fails = refusals({ whenAway: "fail" }, {}, call, 10_000)
    assert.strictEqual(fails.reason._tag, "StoreUnavailable")
    assert.isAtMost(fails.millis, 1)
    const waits = refusals({ whenAway: { wait: "20 seconds" } }, {}, call, 0)
    assert.strictEqual(waits.reason._tag, "StoreUnavailable")
    assert.approximately(waits.millis, 20_000, 3_000)
    const isReadOnly = refusals({ whenAway: { wait: "20 seconds" } }, {}, call, 0, "readOnly")
    assert.strictEqual(isReadOnly.reason._tag, "StoreUnavailable")
    assert.approximately(isReadOnly.millis, 20_000, 3_000)
  })

  it("continues only for the stated time (2)", () => {
    const call = { estimate: { tokens: 1 }, millis: 1 }
    const stops = refusals({ whenAway: "degrade", degradeFor: "30 seconds" }, {}, call, 31_000)
    assert.strictEqual(stops.reason._tag, "StoreUnavailable")
  })

  it("admits a call that is larger than a part when the part is full", () => {
    const [millis, excess] = play((world) =>
      Effect.gen(function* () {
        const options = { limits: { tokens: limit } }
        const fleet = yield* Effect.forEach(names(4), (name) => world.start(name, options, { whenAway: "degrade" }))
        yield* Effect.forEach(fleet, (process) => process.call({ estimate: { tokens: 1 }, millis: 1 }))
        yield* Effect.sleep(3_000)
        world.isDown = true
        const from = yield* Clock.currentTimeMillis
        yield* fleet[0]!.call({ estimate: { tokens: 150_000 }, millis: 1 })
        const millis = (yield* Clock.currentTimeMillis) - from
        yield* stop(fleet)
        return [millis, World.excessOf(world.log, "tokens", limit)] as const
      })
    )
    // A quarter of the bucket is full after two seconds, whatever its size.
    assert.isAtMost(millis, 5_000)
    assert.strictEqual(excess, 0)
  })

  it("refuses a process that has never reached it", () => {
    const reason = play((world) =>
      Effect.gen(function* () {
        world.isDown = true
        const process = yield* world.start("p0", {}, { whenAway: "degrade" })
        const error = yield* Effect.flip(process.call({ estimate: { tokens: 1 }, millis: 1 }))
        yield* process.close
        return error.reason
      })
    )
    assert.strictEqual(reason._tag, "StoreUnavailable")
  })
})

describe("a process that is cut off (2)", () => {
  const cut = (way: "to" | "from" | "both", options: Budget.Options) =>
    play((world) =>
      Effect.gen(function* () {
        const start = (name: string) =>
          world.start(name, options, { whenAway: "degrade", degradeFor: "1 minute", lease: "5 seconds" })
        const fleet = yield* Effect.forEach(names(3), start)
        const [, , c] = fleet
        for (const process of fleet) yield* busy(process, 8, { estimate: { tokens: 4_000 }, millis: 200 })
        yield* Effect.sleep(10_000)
        c!.link.isCutTo = way !== "from"
        c!.link.isCutFrom = way !== "to"
        yield* Effect.sleep(14_000)
        c!.link.isCutTo = c!.link.isCutFrom = false
        yield* Effect.sleep(10_000)
        yield* stop(fleet)
        return world
      })
    )

  for (const way of some(["to", "from", "both"] as const, 3)) {
    it(`continues with its part, and the whole stays within the limit: ${way}`, () => {
      const limited = cut(way, { limits: { tokens: limit } })
      assert.isAtMost(World.excessOf(limited.log, "tokens", limit), limit.burst)
      const saturated = cut(way, { concurrency: 6 })
      assert.isAtMost(saturated.peak(), 6 + 6)
      const late = saturated.log.filter(({ at }) => at > 13_000 && at < 24_000)
      for (const { at } of late) assert.isAtMost(late.filter((each) => each.at <= at && each.at + 200 > at).length, 6)
      for (const world of [limited, saturated]) {
        for (const name of names(3)) {
          const before = began(world, name, 5_000, 10_000) / 5
          // Until its lease is over, its calls count as in flight.
          assert.isAtLeast(began(world, name, 16_000, 24_000) / 8, 0.6 * before, `${name}, cut off ${way}`)
          assert.isAtLeast(began(world, name, 26_000, 34_000) / 8, 0.8 * before, `${name}, after that`)
        }
      }
    })
  }

  it("keeps its part, however many others start meanwhile", () => {
    const world = play((world) =>
      Effect.gen(function* () {
        const options = { limits: { tokens: limit } }
        const start = (name: string) => world.start(name, options, { whenAway: "degrade" })
        const alone = yield* start("p0")
        yield* busy(alone, 20, { estimate: { tokens: 4_000 }, millis: 200 })
        yield* Effect.sleep(10_000)
        alone.link.isCutTo = alone.link.isCutFrom = true
        yield* Effect.sleep(2_000)
        const others = yield* Effect.forEach(["p1", "p2"], start)
        for (const process of others) yield* busy(process, 20, { estimate: { tokens: 4_000 }, millis: 200 })
        yield* Effect.sleep(14_000)
        alone.link.isCutTo = alone.link.isCutFrom = false
        yield* Effect.sleep(10_000)
        yield* stop([alone, ...others])
        return world
      })
    )
    assert.isAtMost(World.excessOf(world.log, "tokens", limit), limit.burst)
    const rate = sumOf(world.log.filter(({ at }) => at >= 13_000 && at < 26_000)) / 13
    assert.isAtMost(rate, limit.perSecond * 1.05)
    for (const name of names(3)) assert.isAtLeast(began(world, name, 28_000, 36_000), 40, `${name} has its share again`)
  })

  it("has its full share again when its part is no longer kept", () => {
    const world = play((world) =>
      Effect.gen(function* () {
        const options = { limits: { tokens: limit } }
        const start = (name: string) => world.start(name, options, { whenAway: "degrade", degradeFor: "20 seconds" })
        const fleet = yield* Effect.forEach(names(2), start)
        for (const process of fleet) yield* busy(process, 20, { estimate: { tokens: 4_000 }, millis: 200 })
        yield* Effect.sleep(5_000)
        fleet[1]!.link.isCutTo = true
        yield* Effect.sleep(40_000)
        yield* stop(fleet)
        return world
      })
    )
    assert.isAtLeast(began(world, "p1", 10_000, 24_000), 100)
    assert.strictEqual(began(world, "p1", 26_000, 45_000), 0)
    // Two seconds' worth of 25 calls each: the whole limit is the other's again.
    assert.isAtLeast(began(world, "p0", 30_000, 40_000), 240)
  })
})

// -----------------------------------------------------------------------------
// When the store has lost the state
// -----------------------------------------------------------------------------

describe("an older state (3)", () => {
  /** Three processes that have used the whole burst, and a store that goes back to before that. */
  const goesBack = (back: "restore" | "wipe", idleMillis: number) =>
    play((world) =>
      Effect.gen(function* () {
        const tokens = { perSecond: 100, burst: 40_000 }
        const fleet = yield* Effect.forEach(names(3), (name) => world.start(name, { limits: { tokens } }))
        yield* Effect.forEach(fleet, (process) => process.call({ estimate: { tokens: 10 }, millis: 10 }))
        yield* Effect.sleep(2_000)
        const restore = redis.snapshot()
        for (const process of fleet) yield* busy(process, 4, { estimate: { tokens: 1_000 }, millis: 50 })
        yield* Effect.sleep(10_000)
        if (back === "restore") restore()
        else redis.wipe()
        yield* Effect.sleep(idleMillis)
        const newcomer = yield* world.start("p3", { limits: { tokens } })
        yield* busy(newcomer, 4, { estimate: { tokens: 1_000 }, millis: 50 })
        yield* Effect.sleep(10_000)
        yield* stop([...fleet, newcomer])
        return World.excessOf(world.log, "tokens", tokens) / tokens.burst
      })
    )

  it("is noticed by the next process that reads, and gives no second burst", () => {
    // Each may have sent one call before it noticed.
    assert.isAtMost(goesBack("restore", 0), 0.1)
    assert.isAtMost(goesBack("restore", 5_000), 0.1)
    assert.isAtMost(goesBack("wipe", 5_000), 0.1)
  })

  it("is noticed by idle processes at their next commit", () => {
    const excess = play((world) =>
      Effect.gen(function* () {
        const tokens = { perSecond: 100, burst: 40_000 }
        const fleet = yield* Effect.forEach(names(3), (name) => world.start(name, { limits: { tokens } }))
        yield* Effect.forEach(fleet, (process) => process.call({ estimate: { tokens: 10 }, millis: 10 }))
        yield* Effect.sleep(2_000)
        const restore = redis.snapshot()
        // One process uses all of it and is idle then. The others do not learn of it.
        yield* times(39, fleet[0]!.call({ estimate: { tokens: 1_000 }, millis: 10 }))
        yield* Effect.sleep(10_000)
        restore()
        yield* Effect.sleep(6_000)
        yield* busy(fleet[1]!, 4, { estimate: { tokens: 1_000 }, millis: 50 })
        yield* Effect.sleep(10_000)
        yield* stop(fleet)
        return World.excessOf(world.log, "tokens", tokens) / tokens.burst
      })
    )
    assert.isAtMost(excess, 0.05)
  })

  /** What a process knows to be left of a quota of a million. */
  const limits = { outputTokens: { total: 1_000_000 } }
  const use = (process: World.Process, outputTokens: number) => process.call({ estimate: { outputTokens }, millis: 10 })
  const leftFor = (process: World.Process) =>
    Effect.map(process.budget.status, ({ pools }) => pools.default!.dimensions.outputTokens!.level)

  it("gives no part of a quota twice if a process has started from an empty store meanwhile", () => {
    const left = play((world) =>
      Effect.gen(function* () {
        const sharing = { whenAway: "degrade" } as const
        const first = yield* world.start("p0", { limits }, sharing)
        yield* use(first, 1_000)
        yield* Effect.sleep(1_000)
        first.link.isCutTo = true
        yield* Effect.sleep(3_000)
        yield* use(first, 100)
        redis.wipe()
        // Its machine has been up for a day longer: by its clock the first process is dead.
        const newcomer = yield* world.start("p1", { limits }, { ...sharing, skewMillis: 86_400_000 })
        yield* use(newcomer, 10)
        yield* Effect.sleep(3_000)
        first.link.isCutTo = false
        yield* Effect.sleep(3_000)
        yield* use(newcomer, 1)
        yield* Effect.sleep(1_000)
        const left = yield* leftFor(newcomer)
        yield* stop([first, newcomer])
        return left
      })
    )
    assert.strictEqual(left, 1_000_000 - 1_111)
  })

  it("of a machine that has been up for days does not make calls in flight look days old", () => {
    const reasons = play((world) =>
      Effect.gen(function* () {
        const options = { limits: { tokens: limit }, concurrency: 2 }
        const process = yield* world.start("p0", options)
        const call = (millis: number) => ({ estimate: { tokens: 1 }, millis })
        yield* times(10, process.call(call(500)))
        yield* Effect.forkDetach(process.call(call(3_000)))
        yield* Effect.sleep(1_000)
        redis.wipe()
        const other = yield* world.start("p1", options, { skewMillis: 10 * 86_400_000 })
        yield* other.call(call(100))
        yield* Effect.sleep(10_000)
        yield* process.call(call(500))
        yield* times(2, Effect.forkDetach(process.call(call(500))))
        yield* Effect.sleep(50)
        const exit = yield* Effect.exit(process.call({ ...call(10), options: { maxWait: "1 minute" } }))
        yield* stop([process, other])
        return exit
      })
    )
    assert.strictEqual(reasons._tag, "Success")
  })

  it("is corrected by a process that has no other event", () => {
    const left = play((world) =>
      Effect.gen(function* () {
        const [first, second] = yield* Effect.forEach(names(2), (name) =>
          world.start(name, { limits }, { whenAway: "fail" })
        )
        for (const process of [first!, second!]) yield* use(process, 10)
        yield* Effect.sleep(2_000)
        const restore = redis.snapshot()
        yield* use(first!, 1_000)
        yield* Effect.sleep(2_000)
        restore()
        // When the store answers again, both have been idle for more than a minute.
        world.isDown = true
        yield* Effect.sleep(70_000)
        world.isDown = false
        yield* Effect.sleep(5_000)
        yield* use(second!, 1)
        yield* Effect.sleep(2_000)
        const left = yield* leftFor(second!)
        yield* stop([first!, second!])
        return left
      })
    )
    assert.strictEqual(left, 1_000_000 - 1_021)
  })
})

// -----------------------------------------------------------------------------
// When a budget is closed
// -----------------------------------------------------------------------------

describe("closing a budget (7)", () => {
  for (const isDown of [false, true]) {
    it(`ends everything at once${isDown ? ", with the store away" : ""}`, () => {
      const [exits, millis] = play((world) =>
        Effect.gen(function* () {
          const limits = { tokens: { perSecond: 10, burst: 1_000 }, requests: { total: 100 } }
          const process = yield* world.start("p0", { limits }, { whenAway: { wait: "10 minutes" } })
          yield* process.call({ estimate: { tokens: 1_000 }, millis: 1 })
          world.isDown = isDown
          const { budget } = process
          const waits = yield* Effect.forkDetach(budget.reserve({ tokens: 1_000 }).pipe(Effect.scoped))
          const bounded = yield* Effect.forkDetach(
            budget.reserve({ tokens: 1_000 }, { maxWait: "1 hour" }).pipe(Effect.scoped)
          )
          yield* Effect.sleep(5_000)
          const from = yield* Clock.currentTimeMillis
          yield* process.close
          const exits = [
            yield* Fiber.await(waits),
            yield* Fiber.await(bounded),
            yield* Effect.exit(budget.reserve({ tokens: 1 }).pipe(Effect.scoped))
          ]
          yield* budget.status
          return [exits, (yield* Clock.currentTimeMillis) - from] as const
        })
      )
      assert.isAtMost(millis, 2_100, "the store's timeout")
      for (const exit of exits) assert.isTrue(Exit.hasInterrupts(exit), String(exit))
    })
  }

  const network: World.Network = { least: 20, most: 20, lost: 0, doubled: 0 }
  const hold = (process: World.Process, tokens: number) =>
    Effect.forkDetach(Effect.scoped(Effect.andThen(process.budget.reserve({ tokens }), Effect.sleep(50_000))))

  it("refunds what its first commit took", () => {
    for (const millis of [50, 70, 90, 110, 130]) {
      const law = play((world) =>
        Effect.gen(function* () {
          const process = yield* world.start("p0", { limits: { tokens: { total: 1_000 } } }, { network })
          yield* hold(process, 900)
          yield* Effect.sleep(millis)
          yield* process.close
          yield* Effect.sleep(100)
          return stored()
        })
      )
      // If the reply was still on its way, the process did not know that its commit was stored.
      if (millis > 110) assert.strictEqual(law!.inFlight, 0)
      else assert.strictEqual(law?.caps.tokens!.level ?? 1_000, 1_000, `${millis} ms`)
    }
  })

  it("refunds what its calls hold once, whatever other processes commit meanwhile", () => {
    for (const offset of [2, 5, 10, 15, 20, 25, 30, 35]) {
      const left = play((world) =>
        Effect.gen(function* () {
          const sharing = { network, lost: "refund" } as const
          const options = { limits: { tokens: { total: 10_000 } } }
          const [a, b] = yield* Effect.forEach(["a", "b"], (name) => world.start(name, options, sharing))
          const nothing = { estimate: { tokens: 1 }, usage: { tokens: 0 }, millis: 1 }
          yield* b!.call({ estimate: { tokens: 5_000 }, millis: 1 })
          yield* Effect.sleep(3_000)
          yield* hold(a!, 1_000)
          yield* Effect.sleep(3_000)
          yield* Effect.forkDetach(b!.call(nothing))
          yield* Effect.sleep(1)
          yield* Effect.forkDetach(a!.call(nothing))
          yield* Effect.sleep(offset)
          yield* a!.close
          yield* Effect.sleep(3_000)
          yield* b!.call(nothing)
          yield* Effect.sleep(3_000)
          const { level } = stored()!.caps.tokens!
          yield* b!.close
          return level
        })
      )
      assert.strictEqual(left, 5_000, `${offset} ms`)
    }
  })
})

// -----------------------------------------------------------------------------
// When the state cannot be read
// -----------------------------------------------------------------------------

describe("a state that is damaged", () => {
  const damage = () => redis.send(["HSET", key, "version", "odd", "value", '{"law":'])
  const call = { estimate: { tokens: 1 }, millis: 1 }

  it("is an error after the time that callers may wait", () => {
    const [error, millis] = play((world) =>
      Effect.gen(function* () {
        redis.send(["HSET", key, "version", "x.1", "value", "no state", "at", "1700000000000"])
        const process = yield* world.start("p0", {}, { whenAway: { wait: "30 seconds" } })
        const error = yield* Effect.flip(
          Effect.timeout(process.call({ estimate: { tokens: 1 }, millis: 1 }), "10 minutes")
        )
        const millis = yield* Clock.currentTimeMillis
        yield* process.close
        return [error, millis] as const
      })
    )
    assert.include(String(error), "delete")
    assert.isAtMost(millis, 33_000)
  })

  it("is an error that says what to do, if no process knows a better one", () => {
    const [reason, done] = play((world) =>
      Effect.gen(function* () {
        damage()
        const process = yield* world.start("p0", {}, { whenAway: "fail" })
        const error = yield* Effect.flip(process.call(call))
        redis.wipe()
        yield* Effect.sleep(10_000)
        const exit = yield* Effect.exit(process.call(call))
        yield* process.close
        return [error.reason, exit] as const
      })
    )
    assert.strictEqual(
      reason.message,
      'The state of pool "default" in the budget\'s store is damaged, it is not JSON: delete its key "' +
        State.keyOf("default") +
        "\", which stands behind the store's prefix, and the pool starts anew with full limits"
    )
    assert.isTrue(Exit.isSuccess(done), String(done))
  })

  it("is replaced by a process that knows the pool, and gives no second burst", () => {
    const limits = { tokens: { perSecond: 100, burst: 1_000 } }
    const world = play((world) =>
      Effect.gen(function* () {
        const options = { limits }
        const fleet = yield* Effect.forEach(names(2), (name) => world.start(name, options, { whenAway: "fail" }))
        yield* fleet[0]!.call({ estimate: { tokens: 900 }, millis: 1 })
        damage()
        for (const process of fleet) yield* process.call({ estimate: { tokens: 900 }, millis: 1 })
        yield* stop(fleet)
        return world
      })
    )
    assert.strictEqual(World.excessOf(world.log, "tokens", limits.tokens), 0)
    assert.lengthOf(world.log, 3)
  })
})
