/** Advice about agents whose calls go to several places. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Agents from "floodgate/Agents"
import type * as Forecast from "floodgate/Forecast"
import * as Budget from "floodgate/Budget"
import * as Estimator from "floodgate/Estimator"
import * as Governor from "floodgate/Governor"
import type * as Limits from "floodgate/Limits"
import * as LlmClient from "floodgate/LlmClient"
import { AccessDenied, LlmError } from "floodgate/LlmError"
import { LlmProvider } from "floodgate/LlmProvider"
import type * as Places from "floodgate/Places"
import * as Spending from "floodgate/Spending"
import { ProviderSim, Simulation } from "floodgate/testing"
import { countingAtOnce } from "../support/atOnce.ts"

const model = "claude-sonnet-5"
const latency = { baseMillis: 1_000, perInputTokenMillis: 0, perOutputTokenMillis: 0 }
const call = { inputTokens: 9_800, outputTokens: 200, duration: 1_000 }
const each: Forecast.Work = { calls: 4, first: call }

const limitsOf = (perSecond: number, burst = 2 * perSecond): Limits.Limits => ({ tokens: { perSecond, burst } })

const placeOf = (name: string, limits: Limits.Limits | undefined): Places.ProviderPlace => ({
  name,
  limits,
  provider: ProviderSim.layer({ limits, latency, outputTokens: call.outputTokens, charsPerToken: 0.01 })
})

type Place = Places.ProviderPlace

const client = (places: ReadonlyArray<Place>, more: Partial<Places.PlacesOptions<Place>> = {}) =>
  LlmClient.layerPlaces({ models: { [model]: places }, ...more }).pipe(
    Layer.provideMerge(Agents.layer.pipe(Layer.provide(Budget.layer())))
  )

const params = {
  model,
  max_tokens: call.outputTokens,
  messages: [{ role: "user" as const, content: "x".repeat(98) }]
}

const one = LlmClient.create(params, { inputTokens: call.inputTokens })

const advise = (options: Agents.AdviseOptions = {}) => Agents.advise({ model, each, ...options })

/** How long a job takes, and how many of its agents ran at once. */
const job = Effect.fnUntraced(function* (count: number, options: Agents.Options) {
  const { around, seen } = countingAtOnce()
  const agents = Array.from({ length: count }, (_, index) => ({
    key: `agent-${index}`,
    effect: around(Effect.replicateEffect(one, each.calls))
  }))
  const now = yield* Clock.currentTimeMillis
  const outcomes = yield* Agents.run(agents, options)
  assert.isTrue(outcomes.every(({ exit }) => Exit.isSuccess(exit)))
  return { max: seen.max, seconds: ((yield* Clock.currentTimeMillis) - now) / 1_000 }
})

const run = (places: ReadonlyArray<Place>, count: number, concurrency: Agents.Options["concurrency"]) =>
  Effect.map(
    Simulation.run(
      job(count, { concurrency, advice: concurrency === "advised" ? { model, each } : undefined }).pipe(
        Effect.provide(client(places)),
        Effect.scoped
      )
    ),
    ({ value }) => value
  )

const agentsAt = ({ places }: Agents.Advice) => Object.fromEntries(places.map(({ agents, name }) => [name, agents]))

const [direct, mirror] = [placeOf("direct", limitsOf(30_000)), placeOf("mirror", limitsOf(30_000))]

/** Advice about places that nobody has called yet. */
const advised = (
  places: ReadonlyArray<Place>,
  options: Agents.AdviseOptions = {},
  more: Partial<Places.PlacesOptions<Place>> = {}
) => Effect.provide(advise(options), client(places, more))

describe("Agents", () => {
  describe("advise, of a model with several places", () => {
    it.effect("advises twice as many agents for two equal places as for one, and says how many at each", () =>
      Effect.gen(function* () {
        const alone = yield* advised([direct])
        const both = yield* advised([direct, mirror])
        assert.isAbove(alone.agents, 2)
        assert.strictEqual(both.agents, 2 * alone.agents)
        assert.deepStrictEqual(agentsAt(both), { direct: alone.agents, mirror: alone.agents })
        assert.deepStrictEqual(both.end, alone.end)
        assert.match(both.text, /^6 more agents help, 3 at direct and 3 at mirror; a further one adds .* tokens are/)
        const job = yield* advised([direct, mirror], { agents: 40 })
        assert.match(job.text, /^Start 8 of 40 agents now, 4 at direct and 4 at mirror: more at once would end/)
      })
    )

    it.effect("divides the agents of a job by the limits, so that the last end as early as possible", () =>
      Effect.gen(function* () {
        const advice = yield* advised([placeOf("small", limitsOf(10_000)), placeOf("large", limitsOf(40_000))], {
          agents: 40
        })
        const { large, small } = agentsAt(advice) as { readonly large: number; readonly small: number }
        assert.isAtLeast(large, 3 * small)
        const one = yield* advised([placeOf("one", limitsOf(50_000))], { agents: 40 })
        assert.isAtMost(Duration.toMillis(advice.end!), 1.1 * Duration.toMillis(one.end!))
        assert.isAtMost(Duration.toMillis(one.end!), 1.1 * Duration.toMillis(advice.end!))
      })
    )

    it.effect("counts each agent that the orchestrator says runs already", () =>
      Effect.gen(function* () {
        const places = ["one", "two", "three"].map((name) => placeOf(name, limitsOf(30_000)))
        const told = [0, 1, 2, 3, 4, 5]
        const counted = yield* Effect.forEach(told, (running) => advised(places, { agents: 2, running }))
        assert.deepStrictEqual(
          counted.map(({ running }) => running),
          told
        )
      })
    )

    it.effect("tells an end for each number, which grows with the number", () =>
      Effect.gen(function* () {
        const { agents, ends, furtherAdds } = yield* advised([direct, mirror])
        const millis = ends.map(({ end }) => Duration.toMillis(end))
        assert.deepStrictEqual(
          millis,
          millis.toSorted((a, b) => a - b)
        )
        const endWith = (count: number) => millis[ends.findIndex(({ agents }) => agents === count)]!
        assert.strictEqual(Duration.toMillis(furtherAdds), endWith(agents + 1) - endWith(agents))
      })
    )

    it.effect("starts no agents for a place that pauses, but foresees its return, and expires then", () =>
      Effect.gen(function* () {
        const { pause } = yield* Budget.TokenBudget
        yield* advise()
        yield* pause({ pool: "mirror/sonnet-5", duration: "8 seconds" })
        const alone = yield* advised([direct], { agents: 40 })
        const paused = yield* advise({ agents: 40 })
        assert.deepStrictEqual(agentsAt(paused)["mirror"], 0)
        assert.isAtMost(paused.agents, alone.agents)
        assert.include(paused.assumptions, "mirror takes no calls for 8 s")
        assert.isBelow(Duration.toSeconds(paused.end!), Duration.toSeconds(alone.end!) - 10)
        assert.isAtMost(Duration.toSeconds(paused.expiresAfter), 8)
        const open = yield* advise()
        assert.deepStrictEqual(agentsAt(open)["mirror"], 0)
        yield* TestClock.adjust("8 seconds")
        assert.isAbove(agentsAt(yield* advise({ agents: 40 }))["mirror"]!, 0)
      }).pipe(Effect.provide(client([direct, mirror])))
    )

    it.effect(
      "starts no agents for a place that pauses, even if a cap has room for few",
      () =>
        Effect.gen(function* () {
          const long = { inputTokens: 19_800, outputTokens: 200, duration: "10 seconds" } as const
          const each = { calls: 5, first: long, later: { ...long, inputTokens: 800 } }
          const { pause } = yield* Budget.TokenBudget
          yield* advise({ each })
          yield* pause({ pool: "mirror/sonnet-5", duration: "2 seconds" })
          const purse = Spending.make("team", { dollars: 0.26 })
          const capped = yield* advise({ each, agents: 40 }).pipe(Spending.from(purse))
          assert.deepStrictEqual([capped.agents, agentsAt(capped)], [4, { direct: 4, mirror: 0 }])
        }).pipe(Effect.provide(client(["direct", "mirror"].map((name) => placeOf(name, limitsOf(5_000, 20_000)))))),
      { tags: "full" }
    )

    it.effect("counts a place whose provider refused the credential from when it is tried again", () =>
      Effect.gen(function* () {
        const denied = new LlmError({ reason: new AccessDenied({ status: 401, detail: "no" }) })
        const refuses = Layer.mock(LlmProvider, { name: "refuses", create: () => Effect.fail(denied) })
        const places = [{ ...direct, provider: refuses }, mirror]
        const { value } = yield* Simulation.run(
          Effect.gen(function* () {
            yield* one
            const refused = yield* advise({ agents: 40 })
            yield* Effect.sleep("30 seconds")
            return { refused, later: yield* advise({ agents: 40 }) }
          }).pipe(Effect.provide(client(places)), Effect.scoped)
        )
        assert.strictEqual(agentsAt(value.refused)["direct"], 0)
        assert.match(value.refused.assumptions.join(), /direct takes no calls for (29|30) s/)
        assert.isAbove(agentsAt(value.later)["direct"]!, 0)
      })
    )

    it.effect("leaves out a place that never fits a call, and says so", () =>
      Effect.gen(function* () {
        const small = placeOf("small", { tokens: { perMinute: 9_000 } })
        const advice = yield* advised([small, direct], { agents: 40 })
        const alone = yield* advised([direct], { agents: 40 })
        assert.strictEqual(agentsAt(advice)["small"], 0)
        assert.deepStrictEqual([advice.agents, advice.end], [alone.agents, alone.end])
        assert.deepStrictEqual(advice.assumptions, [
          "small: A call of 10,000 tokens never fits, because 9,000 are left or allowed at once"
        ])
        const never = yield* advised([small, placeOf("other", { tokens: { perMinute: 9_000 } })], { agents: 40 })
        assert.isUndefined(never.end)
        assert.match(never.text, /^Start no agents now, because tokens are the limit\. 40 agents will never end\./)
      })
    )

    it.effect("counts what is left of a quota at each place", () =>
      Effect.gen(function* () {
        const quota = placeOf("quota", { requests: { total: 10 } })
        const spent = placeOf("spent", { requests: { total: 3 } })
        const some = yield* advised([direct, quota, spent], { agents: 40 })
        assert.deepInclude(agentsAt(some), { quota: 2, spent: 0 })
        assert.deepStrictEqual(some.caps, [])
        const { agents, caps, text } = yield* advised([quota, spent], { agents: 40 })
        assert.deepStrictEqual([agents, caps.map(({ agents }) => agents)], [2, [2]])
        assert.match(text, /but the quotas and long windows of the places have room for 2 agents of this kind\./)
      })
    )

    it.effect("advises no more agents than a quota has room for, also if their number is not asked", () =>
      Effect.gen(function* () {
        const agent = each.calls * (call.inputTokens + call.outputTokens)
        const quota = (agents: number) => ({ tokens: { total: (agents + 0.5) * agent } })
        const advice = yield* advised([placeOf("small", quota(1)), placeOf("large", quota(3))])
        assert.deepStrictEqual(agentsAt(advice), { small: 1, large: 3 })
        assert.strictEqual(advice.agents, 4)
      })
    )

    it.effect("sends no agents where the long window of the account is used up", () =>
      Effect.gen(function* () {
        const governed = (account: ReadonlyArray<string>) =>
          Effect.gen(function* () {
            const governor = yield* Governor.make()
            const windows = account.map((account) => ({ account, name: "5h", used: 1, isRejected: true }))
            return yield* Effect.provideService(advise({ agents: 40 }), Governor.Governor, {
              ...governor,
              windows: Effect.succeed(windows as never)
            })
          }).pipe(Effect.provide(Layer.provideMerge(Estimator.layer(), client([direct, mirror]))))
        const alone = yield* advised([direct], { agents: 40 })
        const one = yield* governed(["mirror"])
        assert.deepStrictEqual(agentsAt(one), { direct: alone.agents, mirror: 0 })
        assert.include(one.assumptions.join(), "mirror: 0 % of the account's window of 5h")
        const none = yield* governed(["mirror", "direct"])
        assert.deepStrictEqual([none.agents, none.binding], [0, "spending"])
        assert.match(none.text, /^Start no agents now, because no more may be spent\./)
      })
    )

    it.effect("counts what is left of the window of an account after the agents that run there, not elsewhere", () =>
      Effect.gen(function* () {
        const window = { name: "5h", used: 0.5, dollars: 2, isRejected: false }
        const windows = ["direct", "mirror"].map((account) => ({ ...window, account }))
        const governor = { ...(yield* Governor.make()), windows: Effect.succeed(windows as never) }
        const room = (places: ReadonlyArray<string>, running: number) =>
          advise({ agents: 200, running, places }).pipe(
            Effect.provideService(Governor.Governor, governor),
            Effect.map(({ caps }) => caps[0]!.agents)
          )
        assert.strictEqual(yield* room(["direct", "mirror"], 10), 2 * (yield* room(["direct"], 5)))
      }).pipe(Effect.provide(Layer.provideMerge(Estimator.layer(), client([direct, mirror]))))
    )

    it.effect("counts only places that the agents may call", () =>
      Effect.gen(function* () {
        const alone = yield* advised([direct], { agents: 40 })
        const only = yield* advised([direct, mirror], { agents: 40, places: ["direct"] })
        assert.deepStrictEqual([only.agents, only.end], [alone.agents, alone.end])
        const drained = yield* advised([direct, { ...mirror, drain: true }], { agents: 40 })
        assert.deepStrictEqual([drained.agents, drained.end], [alone.agents, alone.end])
        const none = yield* Effect.flip(advised([direct, mirror], { places: ["frankfurt"] }))
        assert.match(none.message, /^No place of "claude-sonnet-5" can take the call \(direct: /)
        const unseen = yield* Effect.provide(Agents.advise({ model: "other", places: ["direct"] }), client([direct]))
        const known = "The places of other are known from its first call on, so they are not counted yet"
        assert.include(unseen.assumptions, known)
      })
    )

    it.effect("counts a place that only the last call could not use, because its body cannot be changed", () =>
      Effect.gen(function* () {
        const governor = yield* Governor.make()
        const places = [
          { name: "direct", model, limits: limitsOf(30_000) },
          { name: "mirror", model: "other", limits: limitsOf(30_000), closed: "fixedBody" as const },
          { name: "rests", model, limits: limitsOf(30_000), closed: "drained" as const }
        ]
        yield* governor.run({ model, bytes: 400, places: { places } }, () => Effect.succeed({ value: "answer" }))
        assert.hasAllKeys(agentsAt(yield* advise({ agents: 40 })), ["direct", "mirror"])
      }).pipe(Effect.provide(Layer.provideMerge(Estimator.layer(), Layer.provide(Agents.layer, Budget.layer()))))
    )

    it.effect("asks for the model of the places if it may be one of several", () =>
      Effect.gen(function* () {
        const options = { models: { [model]: [direct, mirror], "claude-haiku-5": [direct] } }
        const live = LlmClient.layerPlaces(options).pipe(
          Layer.provideMerge(Agents.layer.pipe(Layer.provide(Budget.layer())))
        )
        const { assumptions } = yield* Effect.provide(Agents.advise({ each, places: ["direct"] }), live)
        assert.include(assumptions, "The places are not counted, because their model is unknown: state the model")
      })
    )

    it.effect.each(["pool", "account"] as const)("refuses places beside %s, which would not be counted", (option) =>
      Effect.gen(function* () {
        const about = { [option]: "direct", places: ["direct"] }
        const problem = `places: does not apply, because ${option} says where the agents call: leave out one of the two`
        const exit = yield* Effect.exit(advised([direct, mirror], about))
        assert.include(String(exit), `Agents.advise: ${problem}`)
        const job = Agents.run([{ key: "a", effect: one }], { concurrency: "advised", advice: about })
        const exitOfJob = yield* Effect.exit(Effect.provide(job, client([direct, mirror])))
        assert.include(String(exitOfJob), `Agents.run: advice.${problem}`)
      })
    )

    it.effect("counts the cheapest place alone if calls go there", () =>
      Effect.gen(function* () {
        const dear = { ...direct, price: { input: 3, output: 15 } }
        const cheap = { ...mirror, price: { input: 1, output: 5 } }
        const { places } = yield* advised([dear, cheap], { agents: 40 }, { policy: "cheapest" })
        assert.deepStrictEqual(
          places.map(({ name }) => name),
          ["mirror"]
        )
        const soonest = yield* advised([dear, cheap], { agents: 40 })
        assert.deepStrictEqual(agentsAt(soonest), { direct: 4, mirror: 4 })
      })
    )

    it.effect("knows the model if it is the only one in use, and promises the room of no place twice", () =>
      Effect.gen(function* () {
        const one = yield* Agents.advise({ each, agents: 40, asker: "one" })
        assert.deepStrictEqual(agentsAt(one), { direct: 4, mirror: 4 })
        const other = yield* Agents.advise({ each, agents: 40, asker: "other" })
        assert.deepStrictEqual([other.agents, other.running], [1, 8])
      }).pipe(Effect.provide(client([direct, mirror])))
    )

    it.effect("takes back what it promised to an asker whose calls now fit nowhere", () =>
      Effect.gen(function* () {
        const ask = (asker: string, each: Forecast.Work) => advise({ each, agents: 40, asker })
        yield* ask("one", each)
        const never = yield* ask("one", { calls: 1, first: { inputTokens: 10_000_000, outputTokens: 0 } })
        assert.deepStrictEqual(agentsAt(never), { direct: 0, mirror: 0 })
        assert.strictEqual((yield* ask("other", each)).running, 0)
      }).pipe(Effect.provide(client([direct, mirror])))
    )

    it.effect("knows which of several models is meant by the pools in use", () =>
      Effect.gen(function* () {
        const both = LlmClient.layerPlaces({ models: { [model]: [direct, mirror], other: [direct, mirror] } }).pipe(
          Layer.provideMerge(Agents.layer.pipe(Layer.provide(Budget.layer())))
        )
        const { value } = yield* Simulation.run(
          Effect.gen(function* () {
            const before = yield* Agents.advise({ each })
            yield* job(8, {})
            return { before, after: yield* Agents.advise({ each, agents: 40 }) }
          }).pipe(Effect.provide(both), Effect.scoped)
        )
        assert.deepStrictEqual(value.before.places, [])
        assert.deepStrictEqual(
          value.after.places.map(({ pool }) => pool),
          ["direct/sonnet-5", "mirror/sonnet-5"]
        )
      })
    )

    it.effect("tries as many agents as there are places if no limit is known", () =>
      Effect.gen(function* () {
        const [one, other] = [direct, mirror].map((place) => ({ ...place, limits: undefined })) as [Place, Place]
        const { agents, binding, range, text } = yield* advised([one, other], { agents: 40 })
        assert.deepStrictEqual([agents, binding, range], [2, "unknown", undefined])
        assert.match(text, /^Start 2 agents now, 1 at direct and 1 at mirror\..*No limit of mirror is known yet\./)
        const mixed = yield* advised([direct, other], { agents: 40 })
        assert.deepInclude(agentsAt(mixed), { mirror: 1 })
      })
    )

    it.effect("counts a call that waits at several places once", () =>
      Effect.gen(function* () {
        const work: Forecast.Work = { calls: 1, first: call }
        const { value } = yield* Simulation.run(
          Effect.gen(function* () {
            const others = Array.from({ length: 36 }, (_, index) => ({ key: `other-${index}`, effect: one }))
            yield* Agents.fork(others)
            yield* Effect.sleep(100)
            const { end, running } = yield* Agents.advise({ model, each: work, agents: 30 })
            return { end: Duration.toSeconds(end!), running }
          }).pipe(Effect.provideService(Budget.Job, "all"), Effect.provide(client([direct, mirror])), Effect.scoped)
        )
        assert.strictEqual(value.running, 36)
        // 66 calls of 10,000 tokens, from two buckets of 60,000 that refill at 30,000 a second, and the last answer.
        assert.closeTo(value.end, (660_000 - 120_000) / 60_000 + 1, 1)
      })
    )

    it.effect("puts the calls of an agent at several places together, to know what its kind does", () =>
      Effect.gen(function* () {
        const { value } = yield* Simulation.run(
          Effect.gen(function* () {
            yield* job(8, {})
            const { pools } = yield* (yield* Budget.TokenBudget).status
            assert.sameMembers(Object.keys(pools), ["direct/sonnet-5", "mirror/sonnet-5"])
            return yield* Agents.advise({ model, each: "agent-*", agents: 40 })
          }).pipe(Effect.provide(client([direct, mirror])), Effect.scoped)
        )
        assert.deepStrictEqual([value.each.calls, value.each.first, value.assumptions], [4, call, []])
      })
    )
  })

  describe('with the concurrency "advised", of a model with several places', () => {
    for (const rates of [
      [30_000, 30_000],
      [12_000, 48_000]
    ] as const) {
      it.live(
        `takes at most 1.1 times as long as the best number, with limits of ${rates.join(" and ")}`,
        () =>
          Effect.gen(function* () {
            const places = [placeOf("direct", limitsOf(rates[0])), placeOf("mirror", limitsOf(rates[1]))]
            const { max, seconds } = yield* run(places, 40, "advised")
            const others = yield* Effect.forEach([8, 12, 24], (concurrency) =>
              Effect.map(run(places, 40, concurrency), ({ seconds }) => seconds)
            )
            assert.isAtMost(max, 20)
            assert.isAtMost(seconds, 1.1 * Math.min(...others))
          }),
        { tags: "full" }
      )
    }
  })
})
