/** The provider model and the engine of `npm run bench -- weather`: what its figures rest on. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { scenario } from "../../benchmark/weather/build.ts"
import * as Engine from "../../benchmark/weather/engine.ts"
import * as Meter from "../../benchmark/weather/meter.ts"
import * as Prng from "../../benchmark/weather/prng.ts"
import * as Provider from "../../benchmark/weather/provider.ts"
import * as Random from "../../benchmark/weather/random.ts"
import { rivals } from "../../benchmark/weather/rivals.ts"
import * as ClientEngine from "../../benchmark/weather/clientEngine.ts"
import * as Library from "../../benchmark/weather/library.ts"
import type { Neighbour } from "../../benchmark/weather/scenario.ts"
import { cells } from "../../benchmark/weather/cells.ts"
import * as VirtualTime from "../../benchmark/weather/virtualTime.ts"

const request = { input: 2000, output: 200, isPoison: false }
const oracle = rivals["oracle"]!
const minute = 60_000

/** What a greedy client gets out of a meter that is asked at random times: pairs of time and amount. */
const drained = (meter: Meter.Meter, prng: Prng.Prng, millis: number): Array<readonly [at: number, amount: number]> => {
  const taken: Array<readonly [number, number]> = []
  for (let now = 0; now < millis; now += 500 * prng.next()) {
    const amount = Math.ceil(50 * prng.next())
    if (meter.room(now) < amount) continue
    meter.take(amount, now)
    taken.push([now, amount])
  }
  return taken
}
/** The most that was taken within any interval of a length. */
const maxWithin = (taken: ReadonlyArray<readonly [number, number]>, millis: number) =>
  Math.max(
    ...taken.map(([from]) => taken.reduce((sum, [at, n]) => (at >= from && at < from + millis ? sum + n : sum), 0))
  )

describe("Meter", () => {
  it("gives at most burst + rate x interval as a bucket", () => {
    for (let seed = 1; seed <= 5; seed++) {
      const taken = drained(Meter.make("bucket", { perMinute: 600, burst: 100 }, 0), Prng.make(seed), 3 * minute)
      for (const millis of [10, 1000, 30_000, minute]) assert.isAtMost(maxWithin(taken, millis), 100 + millis / 100)
    }
  })

  it("gives at most the limit in any minute as a sliding window, and in each of its own minutes as a fixed one", () => {
    const limit = { perMinute: 600, burst: 1 }
    assert.isAtMost(maxWithin(drained(Meter.make("sliding", limit, 0), Prng.make(1), 3 * minute), minute), 600)
    const taken = drained(Meter.make("fixed", limit, 20_000), Prng.make(1), 3 * minute)
    for (const from of [-20_000, 40_000, 100_000]) {
      const inMinute = taken.filter(([at]) => at >= from && at < from + minute)
      const sum = inMinute.reduce((sum, [, n]) => sum + n, 0)
      assert.isAtMost(sum, 600)
      assert.isAtLeast(sum, 550)
    }
  })

  it("says to the millisecond when there is room", () => {
    for (const window of ["bucket", "sliding", "fixed"] as const) {
      const meter = Meter.make(window, { perMinute: 600, burst: 600 }, 0)
      meter.take(600, 5000)
      const wait = meter.waitFor(10, 5000)
      assert.isBelow(meter.room(5000 + wait - 1), 10)
      assert.isAtLeast(meter.room(5000 + wait), 10)
    }
  })
})

describe("Provider", () => {
  it("tells what is left right after the call, exactly or rounded to thousands", () => {
    const readingsOf = (headers: "exact" | "rounded") => {
      const outcome = Provider.make(scenario("headers", { headers }), 1).arrive({ ...request, input: 1801 }, 0)
      return outcome.kind === "failure" ? undefined : outcome.readings
    }
    assert.deepStrictEqual(readingsOf("exact"), {
      requests: { limit: 1200, remaining: 199, roundedTo: 1 },
      inputTokens: { limit: 1_200_000, remaining: 198_199, roundedTo: 1 }
    })
    assert.deepStrictEqual(readingsOf("rounded")?.inputTokens, {
      limit: 1_200_000,
      remaining: 198_000,
      roundedTo: 1000
    })
  })

  it("rejects what does not fit, with the seconds until it does", () => {
    const provider = Provider.make(scenario("rejection", { burst: 1 / 300 }), 1)
    for (let call = 0; call < 4; call++) assert.strictEqual(provider.arrive(request, 0).kind, "answer")
    const rejection = provider.arrive({ ...request, input: 5000 }, 0)
    assert.strictEqual(rejection.kind, "rejection")
    if (rejection.kind !== "rejection") return
    // 5,000 tokens at 20,000 a second
    assert.strictEqual(rejection.retryAfter, 1000)
    assert.isFalse(rejection.isRandom)
    assert.strictEqual(provider.arrive({ ...request, input: 5000 }, 251).kind, "answer")
  })

  it("fails in an outage as its kind does, and marks random rejections", () => {
    const outages = [{ from: 0, to: 1000, failure: "refused" as const, showsAfter: 5 }]
    const provider = Provider.make(scenario("outage", { outages, random429: 1 }), 1)
    assert.deepStrictEqual(provider.arrive(request, 999), { kind: "failure", failure: "refused", after: 5 })
    const rejection = provider.arrive(request, 1000)
    assert.isTrue(rejection.kind === "rejection" && rejection.isRandom)
  })

  it("bounds the calls in flight, and the growth of usage", () => {
    const latency = { mean: 1000, sigma: 0 }
    const bounded = Provider.make(scenario("concurrency", { concurrency: 2, latency }), 1)
    const kinds = [0, 1, 2, 1001].map((now) => bounded.arrive(request, now).kind)
    assert.deepStrictEqual(kinds, ["answer", "answer", "rejection", "answer"])

    const growing = Provider.make(scenario("ramp", { acceleration: { growth: 1.5, from: 0.1 } }), 1)
    const accepted = Array.from({ length: 8 }, () => 0)
    for (let now = 0; now < 8 * minute; now += 50) {
      if (growing.arrive(request, now).kind === "answer") accepted[Math.floor(now / minute)]!++
    }
    for (let i = 3; i < 8; i++) {
      const growth = accepted[i]! / accepted[i - 1]!
      assert.isTrue((growth > 1.4 && growth < 1.6) || accepted[i]! > 595, `minute ${i}: ${accepted.join(", ")}`)
    }
  })

  it("lets neighbours take what they want, and leaves the rest", () => {
    const beside = (neighbour: Neighbour) => {
      const provider = Provider.make(scenario("neighbour", { neighbours: [neighbour], headers: "none" }), 1)
      const prng = Prng.make(1)
      let ours = 0
      for (let now = 0; now < 10 * minute; now += 200 * prng.next()) {
        if (provider.arrive(request, now).kind === "answer") ours++
      }
      return { part: ours / 6000, used: provider.account(10 * minute).used() }
    }
    for (const part of [0, 0.25, 0.5]) {
      const greedy = beside({ kind: "constant", part })
      assert.approximately(greedy.used, 1.02, 0.02)
      // A client that asks for all gets more than what it is left, but not all.
      assert.isAtLeast(greedy.part, 1 - part)
      assert.isAtMost(greedy.part, 1.02 - part / 3)
    }
  })
})

describe("Engine", () => {
  it("gives the oracle all of the limit, without a rejection", () => {
    const weathers = cells
      .flatMap((cell) => cell.weathers)
      .filter(
        ({ inputTokens, limits, work }) =>
          work.kind === "loop" && limits.inputTokens!.perMinute < 700 * inputTokens.mean
      )
      .filter((_, index) => index % 12 === 0)
    for (const weather of weathers) {
      const { excess, used } = Engine.run(weather, 1, oracle)
      assert.strictEqual(excess, 0, weather.name)
      assert.isAtLeast(used, weather.acceleration === undefined ? 0.98 : 0.5, weather.name)
      assert.isAtMost(used, 1.15, weather.name)
    }
  })

  it("gives the same result for the same seed, and another one for another", () => {
    const weather = Random.make(7)
    const run = (seed: number) => Engine.run({ ...weather, millis: minute }, seed, rivals["aimd"]!)
    assert.deepStrictEqual(run(1), run(1))
    assert.notDeepEqual(run(1), run(2))
  })

  it("loses a call after five rejections of its own, and none that are the pool's", () => {
    const weather = scenario("hopeless", { random429: 1, millis: 20 * minute, agents: 1 })
    assert.isAbove(Engine.run(weather, 1, rivals["retry-after"]!).lost, 0)
    const { lost, sent } = Engine.run(weather, 1, rivals["patient"]!)
    // Their deadline of ten minutes ends them, too.
    assert.isAbove(sent / lost, 10)
  })

  it("makes jobs to their end", () => {
    const weather = scenario("jobs", { agents: 3, jobs: [2000, 1000, 1000], latency: { mean: 2000, sigma: 0 } })
    const { answered, finished, makespan } = Engine.run(weather, 1, oracle)
    assert.deepStrictEqual({ answered, finished, makespan }, { answered: 9, finished: 3, makespan: 6 })
  })
})

describe("VirtualTime", () => {
  it("wakes sleepers in order, at whole milliseconds", () => {
    const time = VirtualTime.make()
    const woken: Array<readonly [name: string, at: number]> = []
    const sleeper = (name: string, millis: number) =>
      Effect.delay(
        Effect.sync(() => woken.push([name, time.now()])),
        Duration.millis(millis)
      )
    const exit = time.run(
      Effect.all([sleeper("a", 20), sleeper("b", 10.2), Effect.timeoutOption(sleeper("c", 100), 15)], {
        concurrency: "unbounded"
      })
    )
    assert.isTrue(Exit.isSuccess(exit))
    assert.deepStrictEqual(woken, [
      ["b", 11],
      ["a", 20]
    ])
    assert.throws(() => time.run(Effect.never), "something other than time")
  })
})

describe("Library", () => {
  it("makes the jobs of the incident without a rejection", () => {
    const incident = cells.find(({ name }) => name === "the incident")!.weathers[0]!
    const { excess, finished, lost } = ClientEngine.run(incident, 1, Library.makeClient)
    assert.deepStrictEqual({ excess, finished, lost }, { excess: 0, finished: 12, lost: 0 })
  })
})
