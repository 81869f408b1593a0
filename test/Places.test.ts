import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Accounting from "floodgate/Accounting"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import * as Events from "floodgate/Events"
import * as Governor from "floodgate/Governor"
import * as LlmClient from "floodgate/LlmClient"
import { AccessDenied, Overloaded, RateLimited, TierFull, type LlmErrorReason } from "floodgate/LlmError"
import { LlmProvider, type Params } from "floodgate/LlmProvider"
import type * as Places from "floodgate/Places"
import * as Retry from "floodgate/Retry"
import * as Spending from "floodgate/Spending"
import { ProviderSim, Simulation } from "floodgate/testing"
import { fail, message, params, whole } from "./support/scriptedProvider.ts"
import { recordingTracer } from "./support/spans.ts"

const model = params.model

interface Seen {
  readonly at: number
  readonly params: Params
}

const answerOf = (cached: number) => {
  const { usage, ...answer } = message("hello")
  return { ...answer, usage: { ...usage, cache_read_input_tokens: cached } }
}

/** A provider that answers after `millis`, and what it received. */
const provider = (
  answer: (call: number, at: number) => LlmErrorReason | undefined = () => undefined,
  millis = 1_000,
  failsAfter = 100,
  cached = 0
) => {
  const seen: Array<Seen> = []
  const open = (params: Params) =>
    Effect.gen(function* () {
      const at = yield* Clock.currentTimeMillis
      seen.push({ at, params })
      const failure = answer(seen.length, at)
      yield* Effect.sleep(failure === undefined ? millis : failsAfter)
      if (failure !== undefined) yield* fail(failure)
    })
  const reply = <A>(value: A) => ({ value, signal: undefined, requestId: undefined })
  const layer = Layer.sync(LlmProvider, () =>
    LlmProvider.of({
      name: "scripted",
      create: (params) => Effect.as(open(params), reply(answerOf(cached))),
      stream: (params) => Effect.as(open(params), reply(Stream.fromIterable(whole("hello")))),
      countTokens: () => Effect.succeed(reply(1))
    })
  )
  return { layer, seen }
}

const limited = (perSecond: number, burst = 1) => ({ requests: { perSecond, burst, window: "bucket" as const } })

type Place = Places.ProviderPlace

const place = (name: string, layer: Layer.Layer<LlmProvider>, more: Partial<Place> = {}): Place => ({
  name,
  provider: layer,
  ...more
})

const client = (
  places: ReadonlyArray<Place>,
  more: Partial<Places.PlacesOptions<Place>> = {},
  options: Governor.Options = {}
) => LlmClient.layerPlaces({ models: { [model]: places }, ...more }, options).pipe(Layer.provideMerge(Budget.layer()))

const create = (how?: LlmClient.CallOptions) => LlmClient.create(params, { inputTokens: 100, ...how })

/** Runs an effect while time passes, and returns its exit and how long it took. */
const during = Effect.fnUntraced(function* <A, E, R>(self: Effect.Effect<A, E, R>) {
  const from = yield* Clock.currentTimeMillis
  const fiber = yield* Effect.forkChild(
    Effect.flatMap(Effect.exit(self), (exit) =>
      Effect.map(Clock.currentTimeMillis, (to) => ({ exit, millis: to - from }))
    )
  )
  yield* TestClock.adjust("20 minutes")
  return yield* Fiber.join(fiber)
})

const status = Effect.flatMap(Budget.TokenBudget, (budget) => budget.status)

/** Nothing waits and nothing runs in any pool. */
const assertIdle = Effect.map(status, ({ pools }) => {
  for (const [name, { inFlight, queued }] of Object.entries(pools)) {
    assert.deepStrictEqual([name, inFlight, queued], [name, 0, 0])
  }
})

describe("Places", () => {
  describe("concurrency", () => {
    it.effect("limits or measures the calls of its place only", () => {
      const [own, hosted] = [provider(undefined, 5_000), provider(undefined, 5_000)]
      const calls = Effect.all(
        Array.from({ length: 40 }, () => create()),
        { concurrency: "unbounded" }
      )
      const looked = (concurrency: Budget.Concurrency) =>
        Effect.gen(function* () {
          const fiber = yield* Effect.forkChild(calls)
          yield* TestClock.adjust(12_000)
          const { pools } = yield* status
          yield* Fiber.interrupt(fiber)
          return ["own", "hosted"].map((name) => pools[`${name}/sonnet-5`]!)
        }).pipe(
          Effect.provide(
            client([
              place("own", own.layer, { concurrency, limits: limited(1_000, 1_000) }),
              place("hosted", hosted.layer, { limits: limited(1) })
            ])
          )
        )
      return Effect.gen(function* () {
        const [stated, other] = yield* looked(3)
        assert.deepInclude(stated, { allowed: 3, inFlight: 3, measured: undefined })
        assert.isUndefined(other!.measured)
        const [measured, unmeasured] = yield* looked({ measuredUpTo: 7 })
        assert.deepInclude(measured, { allowed: 7, inFlight: 7 })
        assert.deepInclude(measured!.measured, { max: 7 })
        assert.isUndefined(unmeasured!.measured)
        const [upToStart] = yield* looked("measured")
        assert.deepInclude(upToStart, { allowed: upToStart!.measured!.limit })
        assert.isUndefined(upToStart!.measured!.max)
      })
    })

    it.effect("and limits are those of the budget again where a place states them no more", () => {
      const answer = Effect.succeed({ value: undefined, actual: { inputTokens: 1, outputTokens: 1 } })
      const ask = (places: Places.CallPlaces["places"]) =>
        Effect.gen(function* () {
          const governor = yield* Governor.Governor
          yield* governor.run({ model: "m", bytes: 10, places: { places } }, () => answer)
          const { allowed, dimensions } = (yield* status).pools["a"]!
          return [allowed, dimensions.requests!.limitPerSecond]
        })
      const a = { name: "a", model: "m" }
      const b = { name: "b", model: "m", closed: "drained" as const }
      return Effect.gen(function* () {
        for (const rest of [[], [b]]) {
          assert.deepStrictEqual(yield* ask([{ ...a, limits: limited(5, 100), concurrency: 3 }, ...rest]), [3, 5])
          assert.deepStrictEqual(yield* ask([{ ...a, limits: limited(5, 100) }, ...rest]), [8, 5])
          assert.deepStrictEqual(yield* ask([a, ...rest]), [8, 1])
        }
        yield* Effect.flatMap(Budget.TokenBudget, (budget) =>
          budget.resize({ limits: limited(2, 100), concurrency: 7 })
        )
        assert.deepStrictEqual(yield* ask([a]), [7, 2])
      }).pipe(
        Effect.provide(
          Governor.layer().pipe(Layer.provideMerge(Budget.layer({ limits: limited(1, 100), concurrency: 8 })))
        )
      )
    })

    it.effect("stays as it is when the limits of all pools are changed", () => {
      const own = provider()
      return Effect.gen(function* () {
        yield* during(create())
        const budget = yield* Budget.TokenBudget
        yield* budget.resize({ limits: limited(5), concurrency: Infinity })
        const { dimensions, measured } = (yield* status).pools["own"]!
        assert.strictEqual(dimensions.requests!.limitPerSecond, 5)
        assert.isDefined(measured)
      }).pipe(
        Effect.provide(
          LlmClient.layerPlaces({ models: { [model]: [place("own", own.layer, { concurrency: "measured" })] } }).pipe(
            Layer.provideMerge(Budget.layer({ limits: limited(1) }))
          )
        )
      )
    })

    it.effect(
      "uses a server that queues as far as it goes, beside a hosted place",
      () => {
        const timeout = "20 seconds"
        const ask = () => LlmClient.create(params, { inputTokens: 100, timeout })
        const job = (concurrency: Budget.Concurrency | undefined) => {
          // The server computes 16 calls at once, and an answer takes 5.5 s. The hosted provider takes one call in 2 s.
          const server = ProviderSim.layer({ server: "vllm", concurrency: 16, outputTokens: 200 })
          const limits = { requests: { perSecond: 0.5, burst: 1, window: "bucket" as const } }
          const hosted = ProviderSim.layer({ limits, outputTokens: 200 })
          const lost = { calls: 0 }
          const counting = Layer.effect(
            LlmProvider,
            Effect.gen(function* () {
              const provider = yield* LlmProvider
              const noted = Effect.onInterrupt(() => Effect.sync(() => void lost.calls++))
              return { ...provider, create: (given: Params) => noted(provider.create(given)) }
            })
          ).pipe(Layer.provide(server))
          const program = Effect.all(
            Array.from({ length: 80 }, () => ask()),
            { concurrency: "unbounded" }
          )
          const live = client([place("own", counting, { concurrency }), place("hosted", hosted, { limits })])
          return Effect.map(Simulation.run(Effect.provide(program, live)), ({ duration }) => ({ duration, lost }))
        }
        return Effect.gen(function* () {
          const measured = yield* job("measured")
          const unbounded = yield* job(undefined)
          assert.strictEqual(measured.lost.calls, 0)
          assert.isAbove(unbounded.lost.calls, 20)
          assert.isBelow(Duration.toSeconds(measured.duration), Duration.toSeconds(unbounded.duration))
        })
      },
      { tags: "full" }
    )
  })

  describe("soonest", () => {
    it.effect("calls the first place if it starts a call at once, by the model's name there", () => {
      const [a, b] = [provider(), provider()]
      return Effect.gen(function* () {
        yield* during(create())
        assert.deepStrictEqual([a.seen.length, b.seen.length], [1, 0])
        assert.strictEqual(a.seen[0]!.params.model, "their-model")
      }).pipe(Effect.provide(client([place("a", a.layer, { model: "their-model" }), place("b", b.layer)])))
    })

    it.effect("uses all places together, and leaves nothing behind", () => {
      const [a, b] = [provider(), provider()]
      return Effect.gen(function* () {
        const { millis } = yield* during(
          Effect.all(
            Array.from({ length: 50 }, () => create()),
            { concurrency: "unbounded" }
          )
        )
        // 50 calls at 5 a second, from bursts of 2, and the last answer. The faster place alone takes 13.25 s.
        assert.isAtMost(millis, 11_000)
        assert.strictEqual(a.seen.length + b.seen.length, 50)
        assert.isAtLeast(b.seen.length, 38)
        yield* assertIdle
      }).pipe(
        Effect.provide(
          client([place("a", a.layer, { limits: limited(1) }), place("b", b.layer, { limits: limited(4) })])
        )
      )
    })

    it.effect("charges each call once", () => {
      const [a, b] = [provider(), provider()]
      const quota = { requests: { total: 100 } }
      return Effect.gen(function* () {
        yield* during(
          Effect.all(
            Array.from({ length: 30 }, () => create()),
            { concurrency: "unbounded" }
          )
        )
        const { pools } = yield* status
        const used = Object.values(pools).map(({ dimensions }) => 100 - dimensions.requests!.level)
        assert.deepStrictEqual(used, [a.seen.length, b.seen.length])
        assert.strictEqual(used[0]! + used[1]!, 30)
      }).pipe(
        Effect.provide(client([place("a", a.layer, { limits: quota }), place("b", b.layer, { limits: quota })])),
        Effect.provideService(Budget.Agent, "one")
      )
    })
  })

  it.effect("count a call as each of them does, or else as the call says", () =>
    Effect.gen(function* () {
      const times = (factor: number): Accounting.Accounting => ({
        ...Accounting.anthropic,
        usage: ({ inputTokens }) => ({ inputTokens: factor * inputTokens })
      })
      const places = ["a", "b"].map((name) => ({
        name,
        model: "m",
        limits: { inputTokens: { total: 10_000 } },
        accounting: name === "a" ? times(2) : undefined
      }))
      const call = { model: "m", bytes: 100, inputTokens: 1_000, accounting: times(3), places: { places } }
      const governor = yield* Governor.Governor
      const answer = Effect.succeed({ value: "ok", actual: { inputTokens: 900, outputTokens: 1 } })
      for (const name of ["a", "b"]) yield* governor.run(call, () => answer, { places: [name] })
      const { pools } = yield* status
      const used = Object.entries(pools).flatMap(([name, { dimensions }]) =>
        dimensions.inputTokens === undefined ? [] : [[name[0], 10_000 - dimensions.inputTokens.level]]
      )
      assert.deepStrictEqual(used, [
        ["a", 1_800],
        ["b", 2_700]
      ])
    }).pipe(Effect.provide(Governor.layer().pipe(Layer.provideMerge(Budget.layer()))))
  )

  describe("failures", () => {
    it.effect("moves a call at once from a place that fails, without using up its attempts", () => {
      const a = provider(() => new Overloaded({ status: 529 }))
      const b = provider()
      return Effect.gen(function* () {
        const { exit, millis } = yield* during(create())
        assert.strictEqual(exit._tag, "Success")
        // The failure takes 100 ms, and the answer a second.
        assert.strictEqual(millis, 1_100)
      }).pipe(
        Effect.provide(
          client([place("a", a.layer), place("b", b.layer)], {}, { retry: Retry.make({ jitter: "none" }) })
        )
      )
    })

    it.effect("leaves a place that is out, and returns to it", () => {
      const a = provider((_, at) => (at < 60_000 ? new Overloaded({ status: 529 }) : undefined))
      const b = provider()
      return Effect.gen(function* () {
        const calls = Effect.forEach(
          Array.from({ length: 100 }, (_, n) => n),
          (n) => Effect.andThen(Effect.sleep(n * 1_000), create()),
          { concurrency: "unbounded" }
        )
        const { exit } = yield* during(calls)
        assert.strictEqual(exit._tag, "Success")
        const failed = a.seen.filter(({ at }) => at < 60_000).length
        // Two failures show the outage; then single calls probe after 1 and 2 s, and every 3 s, because they continue elsewhere.
        assert.isAtMost(failed, 22)
        assert.isAtMost(a.seen[failed]!.at, 64_000)
        assert.isAtLeast(a.seen.length - failed, 30)
      }).pipe(Effect.provide(client([place("a", a.layer), place("b", b.layer)])))
    })

    it.effect("waits as the policy says once a call has failed at every place", () => {
      const a = provider((call) => (call === 1 ? new RateLimited({ status: 429 }) : undefined))
      const b = provider((call) => (call === 1 ? new RateLimited({ status: 429 }) : undefined))
      return Effect.gen(function* () {
        const { millis } = yield* during(create())
        // 100 ms at each; place a may be called again 2 s after its failure.
        assert.strictEqual(millis, 100 + 2_000 + 1_000)
        assert.deepStrictEqual([a.seen.length, b.seen.length], [2, 1])
      }).pipe(
        Effect.provide(
          client([place("a", a.layer), place("b", b.layer)], {}, { retry: Retry.make({ jitter: "none" }) })
        )
      )
    })

    it.effect("makes as many attempts as without places, times their number, when all fail", () => {
      const a = provider(() => new RateLimited({ status: 429 }))
      const b = provider(() => new RateLimited({ status: 429 }))
      return Effect.gen(function* () {
        const { exit } = yield* during(create())
        assert.strictEqual(exit._tag, "Failure")
        assert.isAtMost(a.seen.length + b.seen.length, 60)
        yield* assertIdle
      }).pipe(Effect.provide(client([place("a", a.layer), place("b", b.layer)])))
    })

    it.effect("makes no more requests than the stated attempts", () => {
      const a = provider(() => new RateLimited({ status: 429 }))
      const b = provider(() => new RateLimited({ status: 429 }))
      return Effect.gen(function* () {
        const { exit } = yield* during(create())
        assert.strictEqual(exit._tag, "Failure")
        assert.strictEqual(a.seen.length + b.seen.length, 3)
      }).pipe(
        Effect.provide(client([place("a", a.layer), place("b", b.layer)], {}, { retry: Retry.make({ attempts: 3 }) }))
      )
    })

    it.effect("sets a place aside that refuses the credential, and tries it with one call later", () => {
      const a = provider((_, at) => (at < 50_000 ? new AccessDenied({ status: 401 }) : undefined))
      const b = provider()
      return Effect.gen(function* () {
        for (let n = 0; n < 20; n++) yield* Effect.forkChild(create())
        yield* TestClock.adjust("2 seconds")
        const denied = a.seen.length
        yield* TestClock.adjust("20 seconds")
        yield* Effect.forkChild(create())
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(a.seen.length, denied)
        yield* TestClock.adjust("20 seconds")
        for (let n = 0; n < 5; n++) yield* Effect.forkChild(create())
        yield* TestClock.adjust("500 millis")
        assert.strictEqual(a.seen.length, denied + 1)
        // It was refused at 44 s, and is tried again from 74 s on.
        yield* TestClock.adjust("31 seconds")
        yield* during(create())
        yield* during(create())
        assert.strictEqual(a.seen.length, denied + 3)
      }).pipe(Effect.provide(client([place("a", a.layer), place("b", b.layer)])))
    })

    it.effect("takes a place back as soon as it has answered", () => {
      const a = provider((call) => (call === 2 ? new AccessDenied({ status: 401 }) : undefined), 3_000)
      const b = provider(undefined, 3_000)
      return Effect.gen(function* () {
        // The first call is answered after the second one was refused.
        yield* Effect.forkChild(create())
        yield* TestClock.adjust("1 second")
        yield* Effect.forkChild(create())
        yield* TestClock.adjust("1 second")
        yield* Effect.forkChild(create())
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual([a.seen.length, b.seen.length], [2, 2])
        yield* Effect.forkChild(create())
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual([a.seen.length, b.seen.length], [3, 2])
      }).pipe(Effect.provide(client([place("a", a.layer), place("b", b.layer)])))
    })

    for (const [what, limited, refusal] of [
      ["maxWait", create({ maxWait: "5 seconds" }), "longer than its maxWait of 5s"],
      ["its deadline", Retry.withDeadline(create(), "5 seconds"), "longer than the 5s to its deadline"]
    ] as const) {
      it.effect(`refuses a call at once if all places are set aside for longer than ${what}`, () => {
        const [a, b] = [0, 1].map(() => provider(() => new AccessDenied({ status: 401 })))
        return Effect.gen(function* () {
          yield* Effect.forkChild(Effect.exit(create()))
          yield* TestClock.adjust("1 second")
          const { exit, millis } = yield* during(limited)
          assert.include(String(exit), refusal)
          assert.strictEqual(millis, 0)
          assert.deepStrictEqual([a!.seen.length, b!.seen.length], [1, 1])
          yield* assertIdle
        }).pipe(Effect.provide(client([place("a", a!.layer), place("b", b!.layer)])))
      })
    }

    it.effect("moves a stream before its first content", () => {
      const a = provider(() => new Overloaded({ status: 529 }))
      const b = provider()
      return Effect.gen(function* () {
        const { exit } = yield* during(Stream.runCollect(LlmClient.stream(params)))
        assert.strictEqual(exit._tag, "Success")
        assert.deepStrictEqual([a.seen.length, b.seen.length], [1, 1])
      }).pipe(Effect.provide(client([place("a", a.layer), place("b", b.layer)])))
    })
  })

  describe("restrictions", () => {
    it.effect("keeps a call to the places that it may go to", () => {
      const [a, b] = [provider(), provider()]
      return Effect.gen(function* () {
        yield* during(
          Effect.all(
            [1, 2, 3].map(() => create({ places: ["b"] })),
            { concurrency: "unbounded" }
          )
        )
        assert.deepStrictEqual([a.seen.length, b.seen.length], [0, 3])
        const error = yield* Effect.flip(create({ places: ["c"] }))
        assert.instanceOf(error, Budget.BudgetError)
        assert.strictEqual(
          error.message,
          `No place of "${model}" can take the call (a: The place "a" is not among the places that the call may go to; b: The place "b" is not among the places that the call may go to)`
        )
      }).pipe(Effect.provide(client([place("a", a.layer), place("b", b.layer, { limits: limited(1) })])))
    })

    it.effect("sends no new calls to a place that drains", () => {
      const [a, b] = [provider(), provider()]
      return Effect.gen(function* () {
        yield* during(create())
        assert.deepStrictEqual([a.seen.length, b.seen.length], [0, 1])
      }).pipe(Effect.provide(client([place("a", a.layer, { drain: true }), place("b", b.layer)])))
    })

    it.effect("skips places for which a call is too large, and refuses one that is too large for all", () => {
      const [a, b] = [provider(), provider()]
      const tokens = (burst: number) => ({ inputTokens: { perMinute: burst, burst, window: "bucket" as const } })
      return Effect.gen(function* () {
        yield* during(create({ inputTokens: 5_000 }))
        assert.deepStrictEqual([a.seen.length, b.seen.length], [0, 1])
        const error = yield* Effect.flip(create({ inputTokens: 50_000 }))
        assert.instanceOf(error, Budget.BudgetError)
        assert.strictEqual(error.reason._tag, "NoPlace")
        if (error.reason._tag !== "NoPlace") return
        assert.deepStrictEqual(
          error.reason.places.map(({ place, reason }) => [place, reason._tag]),
          [
            ["a", "EstimateTooLarge"],
            ["b", "EstimateTooLarge"]
          ]
        )
        assert.isFalse(error.isRetryable)
      }).pipe(
        Effect.provide(
          client([place("a", a.layer, { limits: tokens(1_000) }), place("b", b.layer, { limits: tokens(10_000) })])
        )
      )
    })

    it.effect("names every place that cannot take a call, and only the refusal if there is no other place", () => {
      const [a, b] = [provider(), provider()]
      const busy = place("a", a.layer, { limits: limited(0.01) })
      const refusal = (places: ReadonlyArray<Place>) =>
        Effect.gen(function* () {
          yield* Effect.forkChild(create())
          yield* TestClock.adjust("1 second")
          const { exit } = yield* during(Effect.flip(create({ maxWait: "1 second" })))
          return exit._tag === "Success" ? (exit.value as Budget.BudgetError).reason : assert.fail("it was admitted")
        }).pipe(Effect.provide(client(places)))
      return Effect.gen(function* () {
        assert.strictEqual((yield* refusal([busy]))._tag, "WaitTooLong")
        const reason = yield* refusal([busy, place("b", b.layer, { drain: true })])
        assert.strictEqual(reason._tag, "NoPlace")
        if (reason._tag !== "NoPlace") return
        assert.sameDeepMembers(
          reason.places.map(({ place, reason }) => [place, reason._tag]),
          [
            ["a", "WaitTooLong"],
            ["b", "PlaceClosed"]
          ]
        )
      })
    })

    it.effect("refuses a model that no place has", () => {
      const a = provider()
      return Effect.gen(function* () {
        const error = yield* Effect.flip(LlmClient.create({ ...params, model: "claude-sonet-5" }))
        assert.include(error.message, `no place has the model "claude-sonet-5": did you mean "${model}"?`)
      }).pipe(Effect.provide(client([place("a", a.layer)])))
    })
  })

  describe("conversations", () => {
    const turns = (perSecond: number) => {
      const [a, b] = [provider(undefined, 900, 100, 5_000), provider(undefined, 900, 100, 5_000)]
      const live = client([place("a", a.layer, { limits: limited(perSecond) }), place("b", b.layer)])
      return Effect.gen(function* () {
        yield* Effect.forkChild(create({ agent: "researcher" }))
        yield* TestClock.adjust("1 second")
        // Somebody else takes what the place has refilled.
        yield* Effect.forkChild(create({ places: ["a"] }))
        yield* TestClock.adjust(1)
        yield* during(create({ agent: "researcher" }))
        return b.seen.length
      }).pipe(Effect.provide(live))
    }

    it.effect("stay where they are for a wait below a second, and move for a longer one", () =>
      Effect.gen(function* () {
        assert.strictEqual(yield* turns(1.2), 0)
        assert.strictEqual(yield* turns(0.5), 1)
      })
    )

    it.effect("are expected to read no more from the cache than their prompt has", () =>
      Effect.gen(function* () {
        const places = ["a", "b"].map((name) => ({ name, model: "m", limits: { inputTokens: { total: 100_000 } } }))
        const governor = yield* Governor.Governor
        const charged = (inputTokens: number) =>
          governor.run(
            { model: "m", bytes: 100, inputTokens, places: { places } },
            ({ reservation }) =>
              Effect.succeed({
                value: reservation.charge.inputTokens,
                actual: { inputTokens: 900, cacheReadTokens: 5_000, outputTokens: 1 }
              }),
            { agent: "researcher" }
          )
        assert.deepStrictEqual([yield* charged(5_900), yield* charged(6_000), yield* charged(1_000)], [5_900, 100, 0])
      }).pipe(
        Effect.provide(Governor.layer({ accounting: Accounting.anthropic }).pipe(Layer.provideMerge(Budget.layer())))
      )
    )

    const block = { type: "text", text: "Hi".repeat(2_000), cache_control: { type: "ephemeral" } } as const
    const talk = LlmClient.create({ ...params, messages: [{ role: "user", content: [block] }] })

    it.effect("stay where they are if the limit elsewhere takes longer for the prompt than the wait", () =>
      Effect.gen(function* () {
        for (const [perSecond, moved] of [
          [1_500, 0],
          [3_000, 1]
        ] as const) {
          const [a, b] = [provider(undefined, 900, 100, 5_000), provider(undefined, 900, 100, 5_000)]
          const input = { inputTokens: { perSecond, burst: 100_000 } }
          yield* Effect.gen(function* () {
            yield* Effect.forkChild(talk)
            yield* TestClock.adjust("1 second")
            yield* Effect.forkChild(create({ places: ["a"] }))
            yield* TestClock.adjust(1)
            // It would wait three seconds. In the cache are 5,900 tokens.
            yield* Effect.forkChild(talk)
            yield* TestClock.adjust("10 seconds")
            assert.strictEqual(b.seen.length, moved)
          }).pipe(
            Effect.provide(
              client([place("a", a.layer, { limits: limited(0.5) }), place("b", b.layer, { limits: input })])
            )
          )
        }
      })
    )

    it.effect("are known by their prompts, also without a name, and go elsewhere when the cache has expired", () => {
      const [a, b] = [provider(undefined, 900, 100, 5_000), provider(undefined, 900, 100, 5_000)]
      /** Somebody else takes what the place has refilled, and then the conversation goes on. */
      const turn = Effect.gen(function* () {
        yield* Effect.forkChild(create({ places: ["a"] }))
        yield* TestClock.adjust(1)
        yield* Effect.forkChild(talk)
        yield* TestClock.adjust("3 seconds")
      })
      return Effect.gen(function* () {
        yield* Effect.forkChild(talk)
        yield* TestClock.adjust("1 second")
        yield* turn
        assert.deepStrictEqual([a.seen.length, b.seen.length], [3, 0])
        yield* TestClock.adjust("5 minutes")
        yield* turn
        assert.deepStrictEqual([a.seen.length, b.seen.length], [4, 1])
      }).pipe(Effect.provide(client([place("a", a.layer, { limits: limited(1.2) }), place("b", b.layer)])))
    })

    it.effect("are told apart by their agent or cacheKey, and calls without one go anywhere", () => {
      const [a, b] = [provider(undefined, 900, 100, 5_000), provider(undefined, 900, 100, 5_000)]
      return Effect.gen(function* () {
        yield* Effect.forkChild(create())
        yield* TestClock.adjust("1 second")
        yield* Effect.forkChild(create({ places: ["a"] }))
        yield* TestClock.adjust(1)
        yield* during(create())
        assert.strictEqual(b.seen.length, 1)
      }).pipe(Effect.provide(client([place("a", a.layer, { limits: limited(1.2) }), place("b", b.layer)])))
    })
  })

  describe("a call that waits at several places", () => {
    const busy = (perSecond: number) => ({ limits: limited(perSecond) })

    // Regression: it waited for ever for a place that would have been sooner than one that has refused it.
    it.effect("is refused at once if it is too large for all of them, also where its conversation is cached", () => {
      const [a, b] = [provider(undefined, 900, 100, 5_000), provider(undefined, 900, 100, 5_000)]
      const tokens = { limits: { inputTokens: { perMinute: 1_000, burst: 1_000, window: "bucket" as const } } }
      return Effect.gen(function* () {
        yield* during(create({ agent: "researcher" }))
        const { exit, millis } = yield* during(create({ agent: "researcher", inputTokens: 50_000 }))
        assert.include(String(exit), "can take the call")
        assert.strictEqual(millis, 0)
        yield* assertIdle
      }).pipe(Effect.provide(client([place("a", a.layer, tokens), place("b", b.layer, tokens)])))
    })

    it.effect("ends its wait at all of them after exactly its maxWait", () => {
      const [a, b] = ["a", "b"].map((name) => place(name, provider(undefined, 60_000).layer))
      const live = LlmClient.layerPlaces({ models: { [model]: [a!, b!] } }).pipe(
        Layer.provideMerge(Budget.layer({ concurrency: 1 }))
      )
      return Effect.gen(function* () {
        for (const each of ["a", "b"]) yield* Effect.forkChild(create({ places: [each] }))
        yield* TestClock.adjust("100 millis")
        const fiber = yield* Effect.forkChild(Effect.flip(create({ maxWait: "30 seconds" })))
        yield* TestClock.adjust(29_999)
        assert.deepStrictEqual(
          Object.values((yield* status).pools).map(({ queued }) => queued),
          [1, 1]
        )
        yield* TestClock.adjust(1)
        const error = yield* Fiber.join(fiber)
        assert.instanceOf(error, Budget.BudgetError)
        assert.strictEqual(error.reason._tag, "NoPlace")
        if (error.reason._tag !== "NoPlace") return
        assert.deepStrictEqual(
          error.reason.places.map(({ place, reason }) => [place, reason._tag]),
          [
            ["a", "WaitTooLong"],
            ["b", "WaitTooLong"]
          ]
        )
        assert.deepStrictEqual(
          Object.values((yield* status).pools).map(({ queued }) => queued),
          [0, 0]
        )
      }).pipe(Effect.provide(live))
    })

    it.effect("has one span for its wait, if its caller is traced", () => {
      const { spans, tracer } = recordingTracer()
      const [a, b] = [provider(), provider()]
      return Effect.gen(function* () {
        yield* during(Effect.all([create(), create()], { concurrency: "unbounded" }))
        yield* during(Effect.withSpan(Effect.all([create(), create(), create()], { concurrency: 3 }), "caller"))
        const waits = spans.filter(({ attributes }) => attributes.has("floodgate.wait.seconds"))
        assert.deepStrictEqual(
          waits.map(({ attributes }) => [attributes.get("floodgate.wait.seconds"), attributes.get("floodgate.pool")]),
          [[0.5, "b/sonnet-5"]]
        )
      }).pipe(
        Effect.provide(client([place("a", a.layer, busy(1)), place("b", b.layer, busy(2))])),
        Effect.withTracer(tracer)
      )
    })

    it.effect("goes to one of them, and holds nothing at the others, if a layer admits it everywhere", () => {
      const [a, b] = [provider(), provider()]
      const nine = { limits: { requests: { total: 9 } } }
      /** A layer that takes its time, and passes on nothing of what it does not know. */
      const careless = Layer.effect(
        Budget.TokenBudget,
        Effect.map(Budget.TokenBudget, (budget) => ({
          ...budget,
          reserve: (estimate, { account, pool } = {}) =>
            Effect.andThen(Effect.sleep(500), budget.reserve(estimate, { account, pool }))
        }))
      ).pipe(Layer.provide(Budget.layer()))
      const models = { [model]: [place("a", a.layer, nine), place("b", b.layer, nine)] }
      return Effect.gen(function* () {
        const { exit, millis } = yield* during(create())
        assert.deepStrictEqual([exit._tag, millis], ["Success", 1_500])
        const { pools } = yield* status
        assert.deepStrictEqual(
          Object.values(pools).map(({ dimensions, inFlight }) => [dimensions.requests!.level, inFlight]),
          a.seen.length === 1
            ? [
                [8, 0],
                [9, 0]
              ]
            : [
                [9, 0],
                [8, 0]
              ]
        )
        assert.strictEqual(a.seen.length + b.seen.length, 1)
      }).pipe(Effect.provide(LlmClient.layerPlaces({ models }).pipe(Layer.provideMerge(careless))))
    })

    it.effect("keeps its places in the queues if a prediction for it fails", () => {
      const [a, b] = [provider(), provider()]
      let isBroken = false
      const breaking = Layer.effect(
        Budget.TokenBudget,
        Effect.map(Budget.TokenBudget, (budget) => ({
          ...budget,
          foresee: (...asked: Parameters<typeof budget.foresee>) =>
            Effect.suspend(() => (isBroken ? Effect.die(new Error("no idea")) : budget.foresee(...asked)))
        }))
      ).pipe(Layer.provide(Budget.layer()))
      const price = (dollars: number) => ({ price: { input: dollars, output: dollars }, ...busy(0.2) })
      const models = { [model]: [place("a", a.layer, price(1)), place("b", b.layer, price(2))] }
      return Effect.gen(function* () {
        const calls = Effect.forEach([1, 2, 3], () => create(), { concurrency: "unbounded" })
        const fiber = yield* Effect.forkChild(calls)
        yield* TestClock.adjust(100)
        isBroken = true
        yield* TestClock.adjust("20 seconds")
        yield* Fiber.join(fiber)
        assert.deepStrictEqual([a.seen.length, b.seen.length], [3, 0])
      }).pipe(
        Effect.provide(
          LlmClient.layerPlaces({ models, policy: "cheapest", within: "10 minutes" }).pipe(Layer.provideMerge(breaking))
        )
      )
    })
  })

  describe("caps of agents", () => {
    it.effect("count a call that waits in several queues once", () => {
      const [a, b] = [provider(), provider()]
      const places = [place("a", a.layer, { limits: limited(0.5) }), place("b", b.layer, { limits: limited(0.5) })]
      const live = LlmClient.layerPlaces({ models: { [model]: places } }).pipe(
        Layer.provideMerge(Layer.provide(Agents.layer, Budget.layer()))
      )
      return Effect.gen(function* () {
        const calls = Effect.all(
          [1, 2, 3, 4, 5].map(() => create()),
          { concurrency: "unbounded" }
        )
        const { exit } = yield* during(Agents.run([{ key: "x", effect: calls, cap: { calls: 5 } }]))
        assert.strictEqual(exit._tag, "Success")
        if (exit._tag !== "Success") return
        assert.strictEqual(exit.value[0]!.exit._tag, "Success")
        assert.strictEqual(exit.value[0]!.used.calls, 5)
        assert.strictEqual(a.seen.length + b.seen.length, 5)
      }).pipe(Effect.provide(live))
    })
  })

  describe("caps in dollars", () => {
    /** A call of 100 input tokens and at most `max_tokens` of output, which the dear place may charge ten times as much for. */
    const price = { input: 1, output: 1 }
    const dear = { input: 10, output: 10 }
    const most = (100 + params.max_tokens) / 1e6

    it.effect("are charged the price of the place that has answered", () =>
      Effect.gen(function* () {
        const overloaded = new Overloaded({ status: 529 })
        for (const fails of [false, true]) {
          const [a, b] = [provider((n) => (fails && n === 1 ? overloaded : undefined)), provider()]
          const purse = Spending.make("us", { dollars: 1 })
          yield* during(Spending.from(purse)(create())).pipe(
            Effect.provide(client([place("a", a.layer, { price }), place("b", b.layer, { price: dear })]))
          )
          assert.deepStrictEqual([a.seen.length, b.seen.length], [1, fails ? 1 : 0])
          // 900 tokens of input and 100 of output; a rejection costs nothing.
          assert.closeTo((yield* purse.status).spent, (fails ? 10 : 1) * 0.001, 1e-9)
        }
      })
    )

    it.effect("are not exceeded at the place whose price is the highest", () =>
      Effect.gen(function* () {
        for (const prices of [
          [dear, price],
          [price, dear]
        ]) {
          const [a, b] = [provider(), provider()]
          const places = [place("a", a.layer, { price: prices[0] }), place("b", b.layer, { price: prices[1] })]
          yield* Effect.gen(function* () {
            const [less, enough] = [
              Spending.make("less", { dollars: 5 * most }),
              Spending.make("all", { dollars: 10 * most })
            ]
            const { exit } = yield* during(Spending.from(less)(create()))
            assert.include(String(exit), "SpendCapReached")
            assert.deepStrictEqual([a.seen.length, b.seen.length], [0, 0])
            assert.strictEqual((yield* during(Spending.from(enough)(create()))).exit._tag, "Success")
            assert.isAtMost((yield* enough.status).spent, 10 * most)
          }).pipe(Effect.provide(client(places)))
        }
      })
    )
  })

  describe("interruption", () => {
    it.effect("frees the queues of all places when a waiting call is interrupted", () => {
      const [a, b] = [provider(), provider()]
      return Effect.gen(function* () {
        const fibers = yield* Effect.forEach([1, 2, 3, 4, 5, 6], () => Effect.forkChild(create()))
        yield* TestClock.adjust(10)
        const before = yield* status
        assert.deepStrictEqual(
          Object.values(before.pools).map(({ queued }) => queued),
          [4, 4]
        )
        yield* Effect.forEach(fibers, Fiber.interrupt)
        yield* assertIdle
        assert.strictEqual(a.seen.length + b.seen.length, 2)
      }).pipe(
        Effect.provide(
          client([place("a", a.layer, { limits: limited(0.1) }), place("b", b.layer, { limits: limited(0.1) })])
        )
      )
    })
  })

  describe("cheapest", () => {
    const price = { input: 1, output: 1 }
    const dear = { input: 10, output: 10 }
    const priced = { policy: "cheapest" as const, within: "60 seconds" as const }

    it.effect("waits for the cheaper place while that answers in time, else goes to the other", () => {
      const [cheap, standard] = [provider(), provider()]
      return Effect.gen(function* () {
        const { exit } = yield* during(
          Effect.all(
            Array.from({ length: 12 }, () => create()),
            { concurrency: "unbounded" }
          )
        )
        assert.strictEqual(exit._tag, "Success")
        // One call each 10 s: those that would start after about 50 s go to the other place.
        assert.isAtLeast(cheap.seen.length, 4)
        assert.isAtLeast(standard.seen.length, 5)
        const last = Math.max(...cheap.seen.map(({ at }) => at), ...standard.seen.map(({ at }) => at))
        assert.isAtMost(last, 59_000)
      }).pipe(
        Effect.provide(
          client(
            [
              place("standard", standard.layer, { price: dear }),
              place("cheap", cheap.layer, { price, limits: limited(0.1) })
            ],
            priced
          )
        )
      )
    })

    it.effect("goes to the dearer place if the cheaper one takes no calls for longer than it may wait", () => {
      const denied = new AccessDenied({ status: 401 })
      const [a, b] = [provider((n) => (n === 1 ? denied : undefined)), provider()]
      const places = [
        place("a", a.layer, { price: { input: 1, output: 1 } }),
        place("b", b.layer, { price: { input: 2, output: 2 } })
      ]
      return Effect.gen(function* () {
        for (let n = 0; n < 2; n++) {
          const fiber = yield* Effect.forkChild(create({ maxWait: "10 seconds" }))
          yield* TestClock.adjust("2 seconds")
          yield* Fiber.join(fiber)
        }
        assert.deepStrictEqual([a.seen.length, b.seen.length], [1, 2])
      }).pipe(Effect.provide(client(places, { policy: "cheapest" })))
    })

    it.effect("foresees for all waiting calls of a pool together, once a second", () => {
      const calls = 60
      const [a, b] = [provider(), provider()]
      let foreseen = 0
      const counting = Layer.effect(
        Budget.TokenBudget,
        Effect.map(Budget.TokenBudget, (budget) => ({
          ...budget,
          foresee: (...asked: Parameters<typeof budget.foresee>) =>
            Effect.suspend(() => {
              foreseen++
              return budget.foresee(...asked)
            })
        }))
      ).pipe(Layer.provide(Budget.layer()))
      const price = (dollars: number) => ({ price: { input: dollars, output: dollars }, limits: limited(1) })
      const places = LlmClient.layerPlaces(
        {
          models: { [model]: [place("a", a.layer, price(1)), place("b", b.layer, price(2))] },
          policy: "cheapest",
          within: "10 minutes"
        },
        {}
      ).pipe(Layer.provide(counting))
      return Effect.gen(function* () {
        yield* during(Effect.forEach(Array.from({ length: calls }), () => create(), { concurrency: "unbounded" }))
        assert.deepStrictEqual([a.seen.length, b.seen.length], [calls, 0])
        // Once when a call comes, and once a second for all.
        assert.isAtMost(foreseen, 2 * calls + 2 * calls)
      }).pipe(Effect.provide(places))
    })

    it.effect("does not go to a dearer place that cannot answer in time, although it would start there at once", () => {
      const [cheap, slow] = [provider(), provider(undefined, 20_000)]
      const places = [
        place("slow", slow.layer, { price: dear }),
        place("cheap", cheap.layer, { price, limits: limited(0.5) })
      ]
      return Effect.gen(function* () {
        for (const each of ["slow", "cheap"]) for (let n = 0; n < 5; n++) yield* during(create({ places: [each] }))
        const before = slow.seen.length
        yield* during(Effect.all([create(), create()], { concurrency: "unbounded" }))
        assert.deepStrictEqual([cheap.seen.length, slow.seen.length], [7, before])
      }).pipe(Effect.provide(client(places, { policy: "cheapest", within: "10 seconds" })))
    })

    // Regression: an answer that took exactly as long as is assumed before the first one was not counted.
    for (const first of [9_999, 10_000]) {
      it.effect(`expects answers of both kinds after one of ${first} ms and one of 1 s`, () => {
        const [slow, fast, standard] = [provider(undefined, first), provider(), provider()]
        const cheap = Layer.effect(
          LlmProvider,
          Effect.gen(function* () {
            const one = yield* Effect.provide(LlmProvider, slow.layer)
            const other = yield* Effect.provide(LlmProvider, fast.layer)
            return { ...one, create: (params) => (slow.seen.length === 0 ? one : other).create(params) }
          })
        )
        const places = [
          place("standard", standard.layer, { price: dear }),
          place("cheap", cheap, { price, limits: limited(1 / 3, 2) })
        ]
        return Effect.gen(function* () {
          yield* during(create())
          yield* during(create())
          // The last of these would wait for 3 s, and then perhaps as long as the first answer took.
          yield* during(Effect.all([create(), create(), create()], { concurrency: "unbounded" }))
          assert.deepStrictEqual([slow.seen.length, fast.seen.length, standard.seen.length], [1, 3, 1])
        }).pipe(Effect.provide(client(places, { policy: "cheapest", within: "18 seconds" })))
      })
    }

    it.effect("tries the flex tier again after a refusal, and moves in time", () => {
      const flex = provider((call) => (call <= 2 ? new RateLimited({ status: 429 }) : undefined))
      const standard = provider()
      return Effect.gen(function* () {
        const { exit } = yield* during(create())
        assert.strictEqual(exit._tag, "Success")
        assert.deepStrictEqual([flex.seen.length, standard.seen.length], [3, 0])
        assert.propertyVal(flex.seen[0]!.params, "service_tier", "flex")
      }).pipe(
        Effect.provide(client([place("standard", standard.layer), place("flex", flex.layer, { tier: "flex" })], priced))
      )
    })
  })

  describe("a tier without capacity", () => {
    // Regression: refusals looked like an outage, and the pool paused.
    it.effect("refuses attempts, and the others of its pool are sent as before", () => {
      const flex = provider((call) => (call > 1 && call <= 4 ? new TierFull({ status: 429 }) : undefined))
      return Effect.gen(function* () {
        yield* during(create())
        const refused = yield* Effect.forkChild(during(create()))
        yield* Effect.forEach([1, 2], () => Effect.forkChild(Effect.exit(create())))
        yield* TestClock.adjust(200)
        assert.isUndefined(Object.values((yield* status).pools)[0]!.pause)
        const { millis } = yield* during(create())
        assert.strictEqual(millis, 1_000)
        assert.strictEqual((yield* Fiber.join(refused)).exit._tag, "Success")
        yield* assertIdle
      }).pipe(Effect.provide(client([place("flex", flex.layer, { tier: "flex", limits: limited(100, 100) })])))
    })

    it.effect("is asked until it accepts the call, for ten minutes by default", () => {
      const flex = provider((_, at) => (at < 300_000 ? new TierFull({ status: 498 }) : undefined))
      return Effect.gen(function* () {
        const { exit, millis } = yield* during(create())
        assert.strictEqual(exit._tag, "Success")
        assert.isAtLeast(millis, 300_000)
      }).pipe(Effect.provide(client([place("flex", flex.layer, { tier: "flex" })])))
    })
  })

  describe("events", () => {
    it.effect("say where a call went, and what it would have waited elsewhere", () => {
      const [a, b] = [provider(), provider()]
      const seen: Array<Events.Event> = []
      return Effect.gen(function* () {
        yield* during(Effect.all([create(), create()], { concurrency: "unbounded" }))
        const moved = seen.filter(({ type }) => type === "place")
        assert.strictEqual(moved.length, 1)
        assert.deepInclude(moved[0]!, { place: "b", instead: "a", why: "sooner", insteadWait: 10_000, waited: 0 })
        yield* TestClock.adjust("10 seconds")
        yield* Effect.all([create(), create({ maxWait: "5 seconds" })], { concurrency: "unbounded" }).pipe(during)
        assert.deepInclude(
          seen.findLast(({ type }) => type === "place")!,
          { instead: "a", insteadWait: undefined }
        )
      }).pipe(
        Effect.provide(client([place("a", a.layer, { limits: limited(0.1) }), place("b", b.layer)])),
        Effect.provideService(Events.Observer, (event) => void seen.push(event))
      )
    })
  })

  describe("slow places", () => {
    it.effect("are left, tried now and then, and used again after they have recovered", () => {
      const { spans, tracer } = recordingTracer()
      const [slow, usual] = [provider(undefined, 20_000), provider(undefined, 2_000)]
      let isSlow = false
      const a = Layer.effect(
        LlmProvider,
        Effect.gen(function* () {
          const [late, soon] = [
            yield* Effect.provide(LlmProvider, slow.layer),
            yield* Effect.provide(LlmProvider, usual.layer)
          ]
          return { ...soon, create: (params) => (isSlow ? late : soon).create(params) }
        })
      )
      const b = provider(undefined, 2_000)
      const seen: Array<Events.Event> = []
      const moments = (count: number) =>
        Effect.repeat(Effect.andThen(Effect.forkChild(create()), TestClock.adjust("1 second")), { times: count - 1 })
      return Effect.gen(function* () {
        yield* moments(20)
        assert.deepStrictEqual([usual.seen.length, b.seen.length], [20, 0])
        isSlow = true
        yield* moments(20)
        // The first calls are late after 3 s, and a few late calls are enough.
        assert.isAtMost(slow.seen.length, 7)
        assert.deepInclude(
          seen.findLast(({ type }) => type === "place")!,
          { place: "b", instead: "a", why: "slow" }
        )
        const { places } = yield* LlmClient.LlmClient
        assert.deepStrictEqual(
          (yield* places).map(({ pool, state }) => [pool, state]),
          [
            ["a/sonnet-5", "slow"],
            ["b/sonnet-5", "open"]
          ]
        )
        isSlow = false
        const before = usual.seen.length
        yield* moments(120)
        // One call finds out, and then the first place gets them again.
        assert.isAtLeast(usual.seen.length - before, 30)
        const why = spans.map(({ attributes }) => attributes.get("floodgate.place.why"))
        assert.strictEqual(why.filter((each) => each === "probe").length, 1)
        assert.includeMembers(why, ["first", "slow"])
      }).pipe(
        Effect.withSpan("caller"),
        Effect.provide(client([place("a", a), place("b", b.layer)])),
        Effect.provideService(Events.Observer, (event) => void seen.push(event)),
        Effect.withTracer(tracer)
      )
    })
  })

  describe("wrong options", () => {
    const { layer } = provider()

    it("say in one line what to do", () => {
      const throws = (options: Parameters<typeof LlmClient.layerPlaces>[0], text: string) =>
        assert.throws(() => LlmClient.layerPlaces(options), RangeError, text)
      throws({ models: { m: [] } }, 'LlmClient.layerPlaces: models["m"]: expected at least one place, got none')
      throws(
        { models: { m: [place("a", layer), place("b", layer)] } },
        '"a" and "b" have one limit, because they are one provider, credential and tier: remove one'
      )
      throws(
        { models: { m: [place("a", layer)] }, policy: "cheapest" },
        'the policy "cheapest" needs the price of "a", and none is published for "m": add price: { input, output }'
      )
      throws({ models: { m: [place("a b", layer)] } }, "expected letters, digits, dots, hyphens and underscores")
    })
  })
})
