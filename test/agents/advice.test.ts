import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import * as Forecast from "floodgate/Forecast"
import * as Governor from "floodgate/Governor"
import * as Spending from "floodgate/Spending"

const limits = { tokens: { perSecond: 60_000, burst: 200_000 } }
/** The agents of the incident. */
const each: Forecast.Work = {
  calls: 5,
  first: { inputTokens: 149_800, outputTokens: 200 },
  later: { inputTokens: 13_800, outputTokens: 200 }
}
const live = (options: Budget.Options = { limits }) =>
  Effect.provide(Agents.layer.pipe(Layer.provide(Budget.layer(options))))

/** Makes calls of 1 s, each of 1,000 tokens of input and 100 of output. */
const calls = (count: number) =>
  Effect.replicateEffect(
    Budget.withReservation({ inputTokens: 1_000, outputTokens: 500 }, (held) =>
      Effect.andThen(Effect.sleep("1 second"), held.settle({ inputTokens: 1_000, outputTokens: 100 }))
    ),
    count,
    { discard: true }
  )

const ran = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(effect)
    yield* TestClock.adjust("1 hour")
    return yield* Fiber.join(fiber)
  })

const bestMillis = (agents: number, numbers: ReadonlyArray<number>): number =>
  Math.min(
    ...numbers.map((atOnce) => {
      const { calls, first, later } = each
      const job = Forecast.uniform({ agents, calls, first, later })
      return Duration.toMillis(Forecast.make(job, { limits, atOnce }).duration)
    })
  )

describe("Agents", () => {
  describe("advise", () => {
    it.effect(
      "advises a number with which the job takes at most 8 % longer than with the best of all numbers",
      () =>
        Effect.gen(function* () {
          for (const agents of [1, 12, 40, 104]) {
            const advice = yield* Agents.advise({ agents, each })
            const best = bestMillis(
              agents,
              Array.from({ length: agents }, (_, index) => index + 1)
            )
            assert.isAtMost(advice.agents, Math.min(agents, 12))
            assert.isAtMost(Duration.toMillis(advice.end!), 1.09 * best)
            assert.strictEqual(advice.binding, agents === 1 ? "agents" : "tokens")
            assert.strictEqual(advice.job, agents)
          }
        }).pipe(live()),
      { tags: "full" }
    )

    it.effect("has an idle pool take an agent, even if all of its room was promised, and says so", () =>
      Effect.gen(function* () {
        const one = yield* Agents.advise({ agents: 104, each, asker: "one" })
        const other = yield* Agents.advise({ agents: 104, each, asker: "other" })
        assert.deepStrictEqual([other.agents, other.running], [1, one.agents])
        assert.include(other.assumptions, `${one.agents} agents that others were advised to start count as running`)
        yield* Effect.forkScoped(Budget.withReservation({ tokens: 1 }, () => Effect.never))
        const none = yield* Agents.advise({ agents: 104, each, asker: "other" })
        assert.isAtMost(none.agents, 1)
      }).pipe(Effect.scoped, live())
    )

    it.effect("says how many end as early if the first ones have room in the burst", () =>
      Effect.gen(function* () {
        const { agents, ends, text } = yield* Agents.advise({
          each: { calls: 1, first: { inputTokens: 20_000, outputTokens: 0 } }
        })
        const early = ends.filter(({ end }) => Duration.toMillis(end) < Duration.toMillis(ends[0]!.end) + 50)
        assert.match(
          text,
          new RegExp(
            `^${agents} more agents help: enough for a long job, .* up to ${early.at(-1)!.agents} end as early`
          )
        )
      }).pipe(live())
    )

    it.effect("starts more with one question, and lets it hold longer, where asking is dear", () =>
      Effect.gen(function* () {
        const one = { calls: 2, first: { inputTokens: 30_000, outputTokens: 0, duration: "100 millis" as const } }
        const cheap = yield* Agents.advise({ agents: 20, each: one })
        // It takes as much as two agents, so 20 of them are ten times as dear, but there are not more.
        const dear = yield* Agents.advise({ agents: 20, each: one, askingTokens: 120_000 })
        assert.isBelow(cheap.agents, 20)
        assert.strictEqual(dear.agents, 20)
        assert.isAtLeast(Duration.toMillis(dear.expiresAfter), 2_000)
        const some = yield* Agents.advise({ agents: 100, each: one, askingTokens: 60_000 })
        assert.strictEqual(some.agents, Math.max(cheap.agents, 10))
        // An agent that asks is known by its calls.
        yield* Budget.withReservation({ inputTokens: 120_000 }, (held) =>
          held.settle({ inputTokens: 120_000, outputTokens: 0 })
        ).pipe(Effect.provideService(Budget.Agent, "lead"))
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual((yield* Agents.advise({ agents: 20, each: one, asker: "lead" })).agents, 20)
      }).pipe(live())
    )

    it.effect("advises more agents if they wait for their tools", () =>
      Effect.gen(function* () {
        const work = { calls: 8, first: { inputTokens: 10_000, outputTokens: 200 } }
        const busy = yield* Agents.advise({ agents: 96, each: work })
        const resting = yield* Agents.advise({ agents: 96, each: { ...work, pause: "30 seconds" } })
        assert.isAbove(resting.agents, 4 * busy.agents)
      }).pipe(live())
    )

    it.effect("tells the end for each number, which grows with the number", () =>
      Effect.gen(function* () {
        const { agents, ends, furtherAdds } = yield* Agents.advise({ each })
        const millis = new Map(ends.map(({ agents, end }) => [agents, Duration.toMillis(end)]))
        assert.includeMembers([...millis.keys()], [1, 2, 3, agents, agents + 1])
        assert.isAbove(Math.max(...millis.keys()), agents + 1)
        assert.deepStrictEqual(
          [...millis.values()],
          [...millis.values()].toSorted((a, b) => a - b)
        )
        assert.strictEqual(Duration.toMillis(furtherAdds), millis.get(agents + 1)! - millis.get(agents)!)
      }).pipe(live())
    )

    it.effect("says that all help where nothing binds", () =>
      Effect.gen(function* () {
        const first = { inputTokens: 10, outputTokens: 10 }
        const advice = yield* Agents.advise({ agents: 7, each: { calls: 2, first } })
        assert.deepInclude(advice, { agents: 7, binding: "agents" })
        assert.match(advice.text, /^7 more agents help, and no limit binds\. 7 agents will end in 1\.2 s/)
      }).pipe(live())
    )

    it.effect("advises fewer or none while others use the pool, and more again later", () =>
      Effect.gen(function* () {
        // The others' calls take as long, so what the pool measures changes nothing.
        const duration = "1 second"
        const timed = { calls: 5, first: { ...each.first, duration }, later: { ...each.later!, duration } } as const
        const alone = yield* Agents.advise({ agents: 104, each: timed })
        const others = yield* Effect.forkChild(
          Effect.forEach(
            Array.from({ length: 30 }, (_, index) => `other-${index}`),
            (agent) =>
              Budget.withReservation({ tokens: 100_000 }, () => Effect.sleep("1 second")).pipe(
                Effect.provideService(Budget.Agent, agent)
              ),
            { concurrency: "unbounded" }
          )
        )
        yield* TestClock.adjust("1 second")
        const busy = yield* Agents.advise({ agents: 104, each: timed })
        assert.strictEqual(busy.agents, 0)
        assert.match(
          busy.text,
          /^Start no more agents now: the \d+ that count as running are enough, because tokens are the limit\./
        )
        assert.isAbove(busy.running, 25)
        yield* TestClock.adjust("5 minutes")
        yield* Fiber.join(others)
        const after = yield* Agents.advise({ agents: 104, each: timed })
        assert.strictEqual(after.agents, alone.agents)
      }).pipe(live())
    )

    it.effect("counts the agents that the orchestrator says run already", () =>
      Effect.gen(function* () {
        const alone = yield* Agents.advise({ agents: 104, each })
        const some = yield* Agents.advise({ agents: 104, each, running: 3 })
        assert.isAtLeast(some.agents, 1)
        assert.isBelow(some.agents, alone.agents)
        assert.strictEqual((yield* Agents.advise({ agents: 104, each, running: 40 })).agents, 0)
      }).pipe(live())
    )

    it.effect("foresees agents that will be a job of their own beside other jobs", () =>
      Effect.gen(function* () {
        const job = (name: string) =>
          Agents.run(
            Array.from({ length: 5 }, (_, index) => ({ key: `${name}-${index}`, effect: calls(6) })),
            { job: name }
          )
        yield* Effect.forkScoped(Effect.all([job("one"), job("other")], { concurrency: 2 }))
        yield* TestClock.adjust("3 seconds")
        const first = { inputTokens: 1_000, outputTokens: 100, duration: "1 second" as const }
        const { end } = yield* Agents.advise({ agents: 2, each: { calls: 6, first } })
        const third = yield* Effect.forkScoped(
          Effect.timed(Agents.run(["a", "b"].map((key) => ({ key, effect: calls(6) }))))
        )
        yield* TestClock.adjust("1 minute")
        const [actual] = yield* Fiber.join(third)
        assert.closeTo(Duration.toMillis(end!) / Duration.toMillis(actual), 1, 0.1)
      }).pipe(Effect.scoped, live({ limits: { tokens: { perSecond: 3_000, burst: 3_000 } } }))
    )

    it.effect("counts all the work of agents that run and have made no call yet", () =>
      Effect.gen(function* () {
        const { agents } = yield* Agents.advise({ agents: 40, each })
        const started = yield* Agents.advise({ agents: 40 - agents, each, running: agents })
        assert.isAtMost(started.agents + agents, 1.5 * agents)
        const all = yield* Agents.advise({ agents: 10, each, running: 30 })
        // 40 agents of 206,000 tokens each.
        assert.isAtLeast(Duration.toSeconds(all.end!), (40 * 206_000 - 200_000) / 60_000)
      }).pipe(live())
    )

    it.effect("answers however many agents are said to run", () =>
      Effect.gen(function* () {
        const { agents, running } = yield* Agents.advise({ agents: 1, each, running: 1_000_000 })
        assert.deepStrictEqual([agents, running], [1, 1_000_000])
      }).pipe(live({}))
    )

    it.effect(
      "does not promise the same room twice, until the advice expires",
      () =>
        Effect.gen(function* () {
          const ask = (asker: string) => Agents.advise({ agents: 104, each, asker })
          const one = yield* ask("one")
          assert.isAbove(one.agents, 3)
          const again = yield* ask("one")
          assert.strictEqual(again.agents, one.agents)
          const other = yield* ask("other")
          assert.isAtMost(other.agents, 1)
          assert.strictEqual(other.running, one.agents)
          yield* TestClock.adjust(Duration.millis(Duration.toMillis(one.expiresAfter) - 1))
          assert.isAtMost((yield* ask("third")).agents, 1)
          yield* TestClock.adjust("2 minutes")
          assert.strictEqual((yield* ask("third")).agents, one.agents)
        }).pipe(live()),
      { tags: "full" }
    )

    it.effect(
      "takes what earlier agents of the kind did, and how long their calls took",
      () =>
        Effect.gen(function* () {
          const job = ["reader-1", "reader-2", "writer-1"].map((key) => ({
            key,
            effect: calls(key === "writer-1" ? 9 : 3)
          }))
          yield* ran(Agents.run(job))
          const readers = yield* Agents.advise({ agents: 2, each: "reader-*" })
          const call = { inputTokens: 1_000, outputTokens: 100, duration: 1_000 }
          assert.deepStrictEqual(readers.each, { calls: 3, first: call, later: call })
          assert.deepStrictEqual(readers.assumptions, [])
          assert.closeTo(Duration.toSeconds(readers.end!), 3, 0.1)
          assert.strictEqual((yield* Agents.advise({ each: "writer-1" })).each.calls, 9)
          assert.strictEqual((yield* Agents.advise()).each.calls, 5)
        }).pipe(live()),
      { tags: "full" }
    )

    it.effect("counts calls outside of jobs for their agent, but not those that were refunded or failed", () =>
      Effect.gen(function* () {
        yield* ran(Effect.provideService(calls(2), Budget.Agent, "chat"))
        const ending = (end: (held: Budget.Reservation) => Effect.Effect<unknown>) =>
          Effect.provideService(Budget.withReservation({ inputTokens: 9_000 }, end), Budget.Agent, "chat")
        yield* ending(({ refund }) => refund)
        yield* ending(({ fail }) => fail({ reason: "rateLimit", usage: { requests: 1 } }))
        yield* ending(({ settle }) => settle({ inputTokens: 9_000 }, "failure"))
        const { each } = yield* Agents.advise({ each: "chat" })
        assert.deepStrictEqual([each.calls, each.first.inputTokens], [2, 1_000])
      }).pipe(live())
    )

    it.effect(
      "does not know how exactly an end is foreseen before two were, and learns it from agents that begin afterwards",
      () =>
        Effect.gen(function* () {
          const call = { inputTokens: 1_000, outputTokens: 100, duration: "1 second" as const }
          const ask = Agents.advise({ agents: 2, each: { calls: 2, first: call }, asker: "lead" })
          const job = (name: string) =>
            Effect.gen(function* () {
              const advice = yield* ask
              yield* ran(Agents.run([1, 2].map((number) => ({ key: `${name}-${number}`, effect: calls(4) }))))
              return advice
            })
          const first = yield* job("one")
          assert.isUndefined(first.range)
          assert.match(first.text, /\(how exactly is not known yet\)/)
          assert.isUndefined((yield* job("two")).range)
          const { end, range, text } = yield* ask
          const [from, middle, to] = [range!.from, end!, range!.to].map(Duration.toMillis)
          // They made twice the calls, so they took about twice the time, and two misses are widened.
          assert.isAbove(to! / middle!, 2)
          assert.closeTo(to! / middle!, middle! / from!, 0.01)
          assert.match(text, /\(nine times in ten [0-9.]+ m?s to [0-9.]+ s\)/)
        }).pipe(live())
    )

    it.effect(
      "prefers agents that have ended to those that still run, and says so if there are only those",
      () =>
        Effect.gen(function* () {
          const fiber = yield* Effect.forkChild(
            Agents.run([
              { key: "quick", effect: calls(2) },
              { key: "slow", effect: calls(20) }
            ])
          )
          yield* TestClock.adjust("1500 millis")
          const early = yield* Agents.advise()
          assert.isUndefined(early.range)
          assert.match(
            early.assumptions[0]!,
            /^The 2 earlier agents like "\*" still run, and are assumed to be halfway through 2 calls of 1,100 tokens/
          )
          const { assumptions } = yield* Agents.advise({ each: "slow" })
          assert.match(
            assumptions[0]!,
            /^The earlier agent like "slow" still runs, and is assumed to be halfway through 2 calls/
          )
          yield* TestClock.adjust("1 second")
          const later = yield* Agents.advise()
          assert.strictEqual(later.each.calls, 2)
          assert.deepStrictEqual(later.assumptions, [])
          yield* Fiber.interrupt(fiber)
        }).pipe(live()),
      { tags: "full" }
    )

    it.effect(
      "stays quick for agents of very many calls, and refuses more calls than it can play",
      () =>
        Effect.gen(function* () {
          yield* ran(Effect.provideService(calls(300), Budget.Agent, "session"))
          const { each } = yield* Agents.advise({ each: "session" })
          assert.strictEqual(each.calls, 100)
          assert.include(
            String(yield* Effect.exit(Agents.advise({ each: "session", agents: 1_000 }))),
            "Agents.advise: expected at most 20000 calls of all agents, got 100000"
          )
          const long = (calls: number) =>
            Agents.advise({ each: { calls, first: { inputTokens: 9_000, outputTokens: 1 } } })
          assert.isAtLeast((yield* long(300)).atOnce, 1)
          assert.include(
            String(yield* Effect.exit(long(1_001))),
            "each.calls: expected an integer from 1 to 1000, got 1001"
          )
        }).pipe(live()),
      { tags: "full" }
    )

    it.effect("does not take the pattern of a session's sub-agents for a misspelt session", () =>
      Effect.gen(function* () {
        yield* ran(Agents.run([{ key: "session", effect: calls(1) }]))
        const { assumptions } = yield* Agents.advise({ each: "session/*" })
        assert.deepStrictEqual(assumptions, [
          'No earlier agent is like "session/*", so each is assumed to make 5 calls of 10,500 tokens'
        ])
      }).pipe(live())
    )

    it.effect("says what it assumes for a kind that it has never seen, and which kind may be meant", () =>
      Effect.gen(function* () {
        yield* ran(Agents.run([{ key: "reviewer", effect: calls(1) }]))
        const { assumptions, each, range } = yield* Agents.advise({ each: "reviewr" })
        assert.deepStrictEqual(assumptions, [
          'No earlier agent is like "reviewr" (did you mean "reviewer"?), so each is assumed to make 5 calls of 10,500 tokens'
        ])
        assert.strictEqual(each.calls, 5)
        assert.isUndefined(range)
      }).pipe(live())
    )

    it.effect("advises one agent if nothing is known of the pool, then as many again as run", () =>
      Effect.gen(function* () {
        const first = yield* Agents.advise({ agents: 40, each })
        assert.deepInclude(first, { agents: 1, binding: "unknown", range: undefined, ends: [] })
        assert.match(first.text, /^Start 1 agent now\. .*No limit of this pool is known yet/)
        const fiber = yield* Effect.forkChild(calls(3))
        yield* TestClock.adjust(100)
        assert.strictEqual((yield* Agents.advise({ agents: 40, each, running: 4 })).agents, 4)
        assert.strictEqual((yield* Agents.advise({ agents: 3, each, running: 4 })).agents, 3)
        yield* Fiber.interrupt(fiber)
      }).pipe(live({}))
    )

    it.effect("says what fewer at once save: agents, and prompts that the provider would have forgotten", () =>
      Effect.gen(function* () {
        const first = { inputTokens: 100_000, outputTokens: 100 }
        const work = { calls: 2, first, growth: 500, cachedShare: 1 }
        const { agents, saves, text } = yield* Agents.advise({ agents: 200, each: work })
        assert.strictEqual(saves.agents, 200 - agents)
        // The first calls of all take 330 s, and second calls follow. So 18 agents, whose first calls end within 30 s, wait for too long.
        assert.strictEqual(saves.promptTokens, 1_800_000)
        assert.isUndefined(saves.dollars)
        assert.match(text, / All at once would send [0-9,]+ tokens of prompts again that are no longer cached\./)
        const uncached = yield* Agents.advise({ agents: 200, each: { ...work, cachedShare: 0 } })
        assert.strictEqual(uncached.saves.promptTokens, 0)
        const few = yield* Agents.advise({ agents: 1, each: work })
        assert.deepInclude(few, { saves: { agents: 0, promptTokens: 0, dollars: undefined, rejections: 0 }, harms: [] })
      }).pipe(live())
    )

    it.effect("says what those prompts would cost", () =>
      Effect.gen(function* () {
        const work = { calls: 2, first: { inputTokens: 100_000, outputTokens: 100 }, growth: 500, cachedShare: 1 }
        const { saves } = yield* Agents.advise({ agents: 200, each: work, model: "my-model" })
        assert.closeTo(saves.dollars!, (saves.promptTokens * (2.5 - 0.2)) / 1e6, 0.01)
      }).pipe(
        Effect.provide(
          Governor.layer({ prices: { "my-model": { input: 2, output: 10, cacheRead: 0.2, cacheWrite: 2.5 } } }).pipe(
            Layer.provideMerge(Agents.layer),
            Layer.provide(Budget.layer({ limits }))
          )
        )
      )
    )

    it.effect("warns of a server that queues without a limit", () =>
      Effect.gen(function* () {
        const { harms, text } = yield* Agents.advise({ agents: 40, each })
        assert.deepStrictEqual(
          harms.map(({ by }) => by),
          ["server"]
        )
        assert.match(
          text,
          / All at once would do harm: the server refuses no call, so those beyond its size wait in it/
        )
      }).pipe(live({ concurrency: "measured" }))
    )

    it.effect("says so if an agent's call can never be sent", () =>
      Effect.gen(function* () {
        const huge = { calls: 1, first: { inputTokens: 5_000_000, outputTokens: 1 } }
        const { assumptions, ...advice } = yield* Agents.advise({ agents: 4, each: huge })
        assert.deepInclude(advice, { agents: 0, binding: "tokens", end: undefined, ends: [], range: undefined })
        assert.match(advice.text, /4 agents will never end/)
        assert.match(assumptions[0]!, /^A call of 5,000,001 tokens never fits/)
      }).pipe(live())
    )

    it.effect("waits for a pause, and names it", () =>
      Effect.gen(function* () {
        const budget = yield* Budget.TokenBudget
        yield* budget.pause({ duration: "2 minutes" })
        const { binding, end } = yield* Agents.advise({ agents: 1, each })
        assert.strictEqual(binding, "pause")
        assert.closeTo(Duration.toSeconds(end!), 120 + 15, 5)
      }).pipe(live())
    )

    describe("counts what may be spent", () => {
      // A million tokens of input cost a dollar, so an agent costs 2 dollars.
      const prices = { "my-model": { input: 1, output: 0 } }
      const each = { calls: 2, first: { inputTokens: 1_000_000, outputTokens: 100 } }
      const question = { agents: 8, each, model: "my-model" }
      const governed = (options: Governor.Options = {}) =>
        Effect.provide(
          Governor.layer({ prices, ...options }).pipe(
            Layer.provideMerge(Agents.layer),
            Layer.provide(Budget.layer({ limits: { tokens: { perSecond: 1_000_000, burst: 20_000_000 } } }))
          )
        )

      it.effect("says for how many agents a cap has room, and does not advise more", () =>
        Effect.gen(function* () {
          const whole = yield* Agents.advise(question)
          assert.deepInclude(whole, { agents: 8, caps: [] })
          const purse = Spending.make("team", { dollars: 7, per: "day" })
          const capped = yield* Agents.advise(question).pipe(Spending.from(purse))
          assert.deepInclude(capped, { agents: 3, binding: "spending", job: 8 })
          const text = '$7.00 of the cap "team" is left until 1970-01-02 00:00 UTC, enough for 3 agents of this kind'
          assert.deepStrictEqual(capped.caps, [{ name: "team", agents: 3, text }])
          assert.include(capped.text, `Start 3 agents now, because no more may be spent. 8 agents would end in`)
          assert.include(
            capped.text,
            `, but ${text}. All at once would do harm: all of them would use up what is left before`
          )
          assert.deepStrictEqual([whole.harms, capped.harms.map(({ by }) => by)], [[], ["spending"]])
          const rich = Spending.make("rich", { dollars: 16 })
          assert.deepStrictEqual((yield* Agents.advise(question).pipe(Spending.from(rich))).caps, [])
        }).pipe(governed())
      )

      it.effect("leaves to running agents what they will spend", () =>
        Effect.gen(function* () {
          const purse = Spending.make("team", { dollars: 7 })
          const { caps } = yield* Agents.advise({ ...question, running: 3 }).pipe(Spending.from(purse))
          // Each of the three has a call left, half a call of two being rounded up.
          assert.deepInclude(caps[0]!, { name: "team", agents: 2 })
        }).pipe(governed())
      )

      it.effect("counts the share of a long window, and says nothing of windows of unknown size", () =>
        Effect.gen(function* () {
          const { binding, caps } = yield* Agents.advise(question)
          assert.strictEqual(binding, "spending")
          assert.deepStrictEqual(
            caps.map(({ agents, name }) => [name, agents]),
            [["window of 5h", 2]]
          )
          assert.match(
            caps[0]!.text,
            /^30 % of the account's window of 5h is left until 1970-01-01 05:00 UTC, enough for 2/
          )
        }).pipe(
          governed({
            windows: { "5h": { share: 0.8 } },
            learned: {
              profiles: [],
              windows: [
                { name: "5h", used: 0.5, resetsAt: 18_000_000, dollars: 15 },
                { name: "7d", used: 0.99, resetsAt: 18_000_000 }
              ]
            }
          })
        )
      )

      it.effect("needs a price, and says so", () =>
        Effect.gen(function* () {
          const purse = Spending.make("team", { dollars: 1 })
          const { agents, assumptions, caps } = yield* Agents.advise({ agents: 8, each }).pipe(Spending.from(purse))
          assert.deepStrictEqual([agents, caps], [8, []])
          assert.deepStrictEqual(assumptions, [
            "default has no price, so caps in dollars are not counted: state the model"
          ])
        }).pipe(governed())
      )

      it.effect("counts a quota", () =>
        Effect.gen(function* () {
          const { caps, ...advice } = yield* Agents.advise({ agents: 8, each })
          assert.deepInclude(advice, { agents: 3, binding: "tokens", job: 8 })
          assert.deepStrictEqual(caps, [
            { name: "quota of tokens", agents: 3, text: "the quota of tokens has room for 3 agents of this kind" }
          ])
        }).pipe(live({ limits: { tokens: { total: 7_500_000 } } }))
      )
    })

    describe("finds the pool of a question", () => {
      const pools = { "sonnet-5": { tokens: { perSecond: 1_000 } }, "haiku-5": { tokens: { perSecond: 2_000 } } }
      const asked = (options: Agents.AdviseOptions) =>
        Effect.exit(Effect.map(Agents.advise(options), ({ pool }) => pool))
      const use = (account: string, model = "claude-sonnet-5") =>
        Budget.withReservation({ inputTokens: 10 }, () => Effect.void, { account, model })

      it.effect("by its model, its name, or because only one is in use", () =>
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* asked({ model: "claude-haiku-5" }), Exit.succeed("haiku-5"))
          assert.deepStrictEqual(yield* asked({ pool: "sonnet-5" }), Exit.succeed("sonnet-5"))
          yield* Budget.withReservation({ inputTokens: 10 }, () => Effect.void, { pool: "haiku-5" })
          assert.deepStrictEqual(yield* asked({}), Exit.succeed("haiku-5"))
        }).pipe(live({ limits: { pools } }))
      )

      it.effect("by its model alone, where only one account uses it", () =>
        Effect.gen(function* () {
          yield* use("acme")
          assert.deepStrictEqual(yield* asked({ model: "claude-sonnet-5" }), Exit.succeed("acme/sonnet-5"))
          yield* use("umbrella")
          const exit = yield* asked({})
          assert.isTrue(Exit.isFailure(exit))
          assert.include(String(exit), 'Several pools are in use: name one of "acme/sonnet-5", "umbrella/sonnet-5"')
          assert.deepStrictEqual(
            yield* asked({ account: "acme", model: "claude-sonnet-5" }),
            Exit.succeed("acme/sonnet-5")
          )
        }).pipe(live({ limits: { pools } }))
      )

      it.effect("and fails with the known pools if no pool serves the model", () =>
        Effect.gen(function* () {
          const error = yield* Effect.flip(Agents.advise({ model: "claude-opus-5" }))
          assert.instanceOf(error, Agents.PoolUnclear)
          assert.strictEqual(error.message, 'No pool is known for "claude-opus-5": known are "sonnet-5", "haiku-5"')
          const near = yield* Effect.flip(Agents.advise({ pool: "sonet-5" }))
          assert.strictEqual(near.message, 'No pool is known for "sonet-5": did you mean "sonnet-5"?')
        }).pipe(live({ limits: { pools } }))
      )
    })

    it.effect("is a defect that names the option if it is invalid", () =>
      Effect.gen(function* () {
        const message = (options: object) => Effect.map(Effect.exit(Agents.advise(options)), (exit) => String(exit))
        assert.include(
          yield* message({ agents: 0 }),
          "Agents.advise: agents: expected an integer from 1 to 10000, got 0"
        )
        assert.include(
          yield* message({ each: { calls: 0, first: each.first } }),
          "each.calls: expected an integer from 1 to 1000, got 0"
        )
        assert.include(
          yield* message({ each: { calls: 1, first: { inputTokens: 1e16, outputTokens: 0 } } }),
          "Agents.advise: each.first.inputTokens: expected a number from 0 up to 2^53, got 10000000000000000"
        )
        assert.include(yield* message({ running: -1 }), "running: expected an integer >= 0, got -1")
        assert.include(yield* message({ agnets: 1 }), 'unknown option "agnets": did you mean "agents"?')
        assert.include(
          yield* message({ agents: 9_000, each: { ...each, calls: 100 } }),
          "expected at most 20000 calls of all agents, got 900000"
        )
      }).pipe(live())
    )

    it.effect("needs no layer that counts, but then knows no earlier agents", () =>
      Effect.gen(function* () {
        yield* ran(calls(2))
        assert.match((yield* Agents.advise()).assumptions[0]!, /^No earlier agent of this pool is known/)
      }).pipe(Effect.provide(Budget.layer({ limits })))
    )
  })
})
