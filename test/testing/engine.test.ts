import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import type * as Limits from "floodgate/Limits"
import * as Engine from "../../src/testing/engine.ts"
import type { Options } from "../../src/testing/models.ts"
import * as Simulator from "../../src/testing/simulator.ts"

const instant = { baseMillis: 0, perInputTokenMillis: 0, perOutputTokenMillis: 0 }
const model = "claude-sonnet-5"

const ask = (state: Engine.ProviderState, now: number, inputTokens: number, outputTokens = 0): Engine.RequestDecision =>
  Engine.request(state, now, { model, inputTokens, outputTokens })

const accepted = (decision: Engine.RequestDecision): Engine.AcceptedCall => {
  if (decision._tag !== "Accepted") assert.fail(`expected an accepted call, got ${decision._tag}`)
  return decision.call
}

const rejected = (decision: Engine.RequestDecision): Engine.Rejected => {
  if (decision._tag !== "Rejected") assert.fail(`expected a rejection, got ${decision._tag}`)
  return decision
}

/** Arrivals: milliseconds since the one before, and input tokens. */
const History = Schema.Array(
  Schema.Tuple([
    Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 20_000 })),
    Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 300 }))
  ])
).check(Schema.isMaxLength(60))
type History = typeof History.Type

interface Arrival {
  readonly at: number
  readonly tokens: number
  readonly decision: Engine.RequestDecision
}

const play = (options: Options, history: History): ReadonlyArray<Arrival> => {
  const state = Engine.make({ latency: instant, ...options })
  let at = 0
  return history.map(([gap, tokens]) => {
    at += gap
    return { at, tokens, decision: ask(state, at, tokens) }
  })
}

const admitted = (options: Options, history: History) =>
  play(options, history).filter(({ decision }) => decision._tag === "Accepted")

const runs = { arbitrary: { runs: 150 } }
const limit = (window: NonNullable<Limits.Limit["window"]>): Limits.Limits => ({
  inputTokens: { perMinute: 600, window }
})
const kinds: ReadonlyArray<NonNullable<Limits.Limit["window"]>> = ["bucket", "sliding", "fixed"]

describe("engine", () => {
  it("refuses an invalid time, and does not search for it endlessly", () => {
    assert.throws(() => Engine.advance(Engine.make({}), NaN), RangeError, "expected a time after 0 ms, got NaN")
  })

  describe("limits", () => {
    it.prop(
      "a sliding window never holds more than the limit in any minute",
      { history: History },
      ({ history }) => {
        const calls = admitted({ limits: limit("sliding") }, history)
        for (const { at } of calls) {
          const inWindow = calls.filter((call) => call.at > at - 60_000 && call.at <= at)
          assert.isAtMost(
            inWindow.reduce((sum, call) => sum + call.tokens, 0),
            600
          )
        }
      },
      runs
    )

    it.prop(
      "a bucket never admits more than its burst and what has refilled",
      { history: History },
      ({ history }) => {
        const limits = { inputTokens: { perSecond: 10, burst: 400 } }
        const calls = admitted({ limits, oversize: "reject" }, history)
        calls.forEach((first, from) => {
          let sum = 0
          for (const call of calls.slice(from)) {
            sum += call.tokens
            assert.isAtMost(sum, 400 + (10 * (call.at - first.at)) / 1_000 + 1e-3)
          }
        })
      },
      runs
    )

    it.prop(
      "a fixed window never holds more than the limit",
      { history: History },
      ({ history }) => {
        const windows = new Map<number, number>()
        for (const { at, tokens } of admitted({ limits: limit("fixed") }, history)) {
          const window = Math.floor(at / 60_000)
          windows.set(window, (windows.get(window) ?? 0) + tokens)
        }
        for (const sum of windows.values()) assert.isAtMost(sum, 600)
      },
      runs
    )

    for (const window of kinds) {
      for (const rejections of ["free", "charged"] as const) {
        it.prop(
          `the wait that a rejection names is exact (${window}, rejections ${rejections})`,
          { history: History },
          ({ history }) => {
            const options: Options = { limits: limit(window), rejections, latency: instant }
            const arrivals = play(options, history)
            const index = arrivals.findLastIndex(({ decision }) => decision._tag === "Rejected")
            if (index === -1) return
            const { at, decision, tokens } = arrivals[index]!
            const wait = rejected(decision).retryAfterMillis!
            const retry = (millis: number) => {
              const state = Engine.make(options)
              for (const arrival of arrivals.slice(0, index + 1)) ask(state, arrival.at, arrival.tokens)
              return ask(state, at + millis, tokens)
            }
            assert.strictEqual(retry(wait)._tag, "Accepted")
            assert.strictEqual(retry(wait - 1)._tag, "Rejected")
          },
          runs
        )
      }
    }

    it("charges every dimension or none", () => {
      const state = Engine.make({ limits: { requests: { perMinute: 10 }, inputTokens: { perMinute: 100 } } })
      accepted(ask(state, 0, 90))
      const rejection = rejected(ask(state, 0, 20))
      assert.strictEqual(rejection.entry.rejectedBy, "inputTokens")
      assert.strictEqual(Engine.left(state, 0, model).requests, 9)
    })

    it("names the dimension that takes longest", () => {
      const state = Engine.make({ limits: { requests: { perMinute: 1 }, inputTokens: { perSecond: 100 } } })
      accepted(ask(state, 0, 100))
      assert.strictEqual(rejected(ask(state, 0, 50)).entry.rejectedBy, "requests")
    })

    it("admits a call larger than the burst into debt when the bucket is full, or never", () => {
      const limits = { inputTokens: { perSecond: 10, burst: 100 } }
      const debt = Engine.make({ limits, latency: instant })
      accepted(ask(debt, 0, 400))
      assert.strictEqual(rejected(ask(debt, 0, 200)).retryAfterMillis, 40_000)
      assert.strictEqual(ask(debt, 39_999, 200)._tag, "Rejected")
      assert.strictEqual(ask(debt, 40_000, 200)._tag, "Accepted")
      const strict = Engine.make({ limits, oversize: "reject" })
      assert.strictEqual(rejected(ask(strict, 0, 101)).retryAfterMillis, 60_000)
    })

    it("never admits more than a minute's worth at once", () => {
      const state = Engine.make({ limits: { inputTokens: { perMinute: 100 } } })
      assert.strictEqual(rejected(ask(state, 0, 101)).retryAfterMillis, 60_000)
      assert.strictEqual(rejected(ask(state, 120_000, 101)).retryAfterMillis, 60_000)
    })

    it("answers an exhausted quota with a spend limit and no retry time", () => {
      const state = Engine.make({ limits: { tokens: { total: 100 } } })
      accepted(ask(state, 0, 100))
      const rejection = rejected(ask(state, 3_600_000, 1))
      assert.strictEqual(rejection.errorCode, "enforced_spend_limit_reached")
      assert.isUndefined(rejection.retryAfterMillis)
    })

    it("gives each pool its own limits, by the longest name that matches", () => {
      const one = { inputTokens: { perMinute: 100 } }
      const state = Engine.make({ limits: one, pools: { claude: one, "claude-opus-4": one } })
      const to = (model: string) => Engine.request(state, 0, { model, inputTokens: 100, outputTokens: 0 })._tag
      assert.deepStrictEqual(
        [to("claude-opus-4-8"), to("claude-opus-4-7"), to("claude-haiku-4-5"), to("gpt"), to("other")],
        ["Accepted", "Rejected", "Accepted", "Accepted", "Rejected"]
      )
    })

    it("gives each class of Claude its own limits, whatever the model is called", () => {
      const one = { inputTokens: { perMinute: 100 } }
      const state = Engine.make({ pools: { "opus-4": one, "sonnet-5": one } })
      const to = (model: string) => Engine.request(state, 0, { model, inputTokens: 100, outputTokens: 0 })._tag
      assert.deepStrictEqual(
        [
          to("claude-opus-4-8"),
          to("anthropic.claude-opus-4-5-20251101-v1:0"),
          to("claude-sonnet-5"),
          to("claude-opus-5")
        ],
        ["Accepted", "Rejected", "Accepted", "Accepted"]
      )
      assert.strictEqual(to("claude-opus-5"), "Accepted")
    })

    it("takes the start of a name before a class", () => {
      const one = { inputTokens: { perMinute: 100 } }
      const state = Engine.make({ pools: { "opus-4": one, "claude-opus-4-8": one } })
      const pool = (model: string) => Engine.request(state, 0, { model, inputTokens: 1, outputTokens: 0 })
      assert.strictEqual(accepted(pool("claude-opus-4-8")).pool.name, "claude-opus-4-8")
      assert.strictEqual(accepted(pool("claude-opus-4-7")).pool.name, "opus-4")
    })
  })

  describe("rejections", () => {
    it("cost nothing when they are free", () => {
      const state = Engine.make({ limits: { tokens: { perMinute: 1_000 } }, latency: instant })
      accepted(ask(state, 0, 900))
      for (let n = 0; n < 100; n++) rejected(ask(state, 0, 200))
      assert.strictEqual(Engine.left(state, 0, model).tokens, 100)
    })

    it("count as one request and 5 % of the tokens when they are charged, and never lead into debt", () => {
      const limits = { requests: { perMinute: 10 }, tokens: { perMinute: 1_000 } }
      const state = Engine.make({ limits, rejections: "charged", latency: instant })
      accepted(ask(state, 0, 900))
      rejected(ask(state, 0, 200))
      assert.deepStrictEqual(Engine.left(state, 0, model), { requests: 8, tokens: 90 })
      for (let n = 0; n < 100; n++) rejected(ask(state, 0, 200))
      assert.deepStrictEqual(Engine.left(state, 0, model), { requests: 0, tokens: 0 })
    })

    it("count as configured", () => {
      const limits = { requests: { perMinute: 10 }, tokens: { perMinute: 1_000 } }
      const state = Engine.make({ limits, rejections: { requests: 2, tokenShare: 0.25 } })
      accepted(ask(state, 0, 900))
      rejected(ask(state, 0, 200))
      assert.deepStrictEqual(Engine.left(state, 0, model), { requests: 7, tokens: 50 })
    })
  })

  describe("output", () => {
    const latency = { baseMillis: 1_000, perInputTokenMillis: 0, perOutputTokenMillis: 10 }

    it("is counted as it is produced", () => {
      const state = Engine.make({ limits: { outputTokens: { perMinute: 6_000 } }, latency })
      accepted(ask(state, 0, 1, 1_000))
      assert.strictEqual(Engine.left(state, 1_000, model).outputTokens, 6_000)
      // Half of the output, and what 5 s refill.
      assert.closeTo(Engine.left(state, 6_000, model).outputTokens!, 6_000, 1e-6)
      const fast = Engine.make({
        limits: { outputTokens: { perMinute: 600 } },
        latency: { ...latency, perOutputTokenMillis: 1 }
      })
      accepted(ask(fast, 0, 1, 1_000))
      assert.closeTo(Engine.left(fast, 1_500, model).outputTokens!, 600 - 500 + 5, 1e-6)
    })

    it("admits calls as long as anything is left, and reports exactly when that is the case again", () => {
      const state = Engine.make({ limits: { outputTokens: { perSecond: 10, burst: 100 } }, latency: instant })
      accepted(ask(state, 0, 1, 250))
      accepted(ask(Engine.make({ limits: { outputTokens: { perSecond: 10 } }, latency: instant }), 0, 1, 250))
      const wait = rejected(ask(state, 0, 1, 1)).retryAfterMillis!
      assert.strictEqual(wait, 15_001)
      assert.strictEqual(ask(state, wait - 1, 1, 1)._tag, "Rejected")
      assert.strictEqual(ask(state, wait, 1, 1)._tag, "Accepted")
    })

    it("is counted at admission if configured", () => {
      const state = Engine.make({ limits: { outputTokens: { perMinute: 1_000 } }, output: "admission", latency })
      accepted(ask(state, 0, 1, 600))
      assert.strictEqual(Engine.left(state, 0, model).outputTokens, 400)
      rejected(ask(state, 0, 1, 600))
    })

    it("counts tokens at admission by usage, or as OpenAI and Azure do", () => {
      const takenBy = (maxTokens?: number) =>
        (["usage", "openai", "azure"] as const).map((counting) => {
          const state = Engine.make({ limits: { tokens: { perMinute: 10_000 } }, counting })
          Engine.request(state, 0, { model, inputTokens: 300, outputTokens: 500, maxTokens })
          return 10_000 - Engine.left(state, 0, model).tokens!
        })
      assert.deepStrictEqual(takenBy(1_000), [800, 1_000, 1_300])
      // At OpenAI output counts only as far as the request allows it in advance.
      assert.deepStrictEqual(takenBy(), [800, 300, 800])
    })

    it("stops when the caller disconnects: its slot is freed, and its input stays counted", () => {
      const limits = { inputTokens: { perMinute: 1_000 }, outputTokens: { perMinute: 1_000 } }
      const state = Engine.make({ limits, latency, concurrency: 1 })
      const call = accepted(ask(state, 0, 900, 500))
      assert.strictEqual(rejected(ask(state, 3_500, 1)).entry.rejectedBy, "concurrency")
      Engine.abort(state, 3_500, call)
      assert.strictEqual(call.entry.producedTokens, 250)
      assert.isTrue(call.entry.aborted)
      const left = Engine.left(state, 3_500, model)
      assert.closeTo(left.inputTokens!, 100 + 3_500 / 60, 1e-6)
      accepted(ask(state, 3_500, 1))
      const stats = Engine.stats(state, 3_500)
      assert.deepStrictEqual([stats.inFlight, stats.peakInFlight, stats.aborted], [1, 1, 1])
    })
  })

  describe("time", () => {
    it("computes latency from the tokens", () => {
      const latency = { baseMillis: 100, perInputTokenMillis: 0.5, perOutputTokenMillis: 2 }
      const call = accepted(ask(Engine.make({ latency }), 1_000, 200, 50))
      assert.deepStrictEqual([call.firstTokenAt, call.finishesAt], [1_200, 1_300])
    })

    it("varies latency around its mean, the same way for the same seed", () => {
      const latency = { baseMillis: 1_000, perInputTokenMillis: 0, perOutputTokenMillis: 0, noise: 0.3 }
      const times = (seed: number) => {
        const state = Engine.make({ latency, seed })
        return Array.from({ length: 2_000 }, () => accepted(ask(state, 0, 1)).finishesAt)
      }
      const sample = times(7)
      assert.closeTo(sample.reduce((sum, time) => sum + time, 0) / sample.length, 1_000, 20)
      assert.deepStrictEqual(times(7), sample)
      assert.notDeepEqual(times(8), sample)
    })

    it("does not go back", () => {
      const state = Engine.make({ limits: { requests: { perMinute: 60 } } })
      ask(state, 1_000, 1)
      ask(state, 500, 1)
      assert.strictEqual(Engine.left(state, 500, model).requests, 58)
    })
  })

  describe("other limits", () => {
    it("limits concurrent calls until the first of them ends", () => {
      const latency = { ...instant, baseMillis: 2_000 }
      const state = Engine.make({ concurrency: 2, latency })
      accepted(ask(state, 0, 1))
      accepted(ask(state, 500, 1))
      assert.strictEqual(rejected(ask(state, 700, 1)).retryAfterMillis, 1_300)
      accepted(ask(state, 2_000, 1))
    })

    it("queues further calls in the order of arrival, and rejects those that find the queue full", () => {
      const latency = { ...instant, baseMillis: 2_000 }
      const state = Engine.make({ concurrency: 1, queue: 2, busyStatus: 503, latency })
      const first = accepted(ask(state, 0, 1))
      const second = accepted(ask(state, 500, 1))
      const third = accepted(ask(state, 600, 1))
      const { errorType, retryAfterMillis, status } = rejected(ask(state, 700, 1))
      assert.deepStrictEqual([status, errorType, retryAfterMillis], [503, "overloaded_error", 1_300])
      const { inFlight, queued, rejected: busy, rejectionsBy } = Engine.stats(state, 700)
      assert.deepStrictEqual([inFlight, queued, busy, rejectionsBy], [1, 2, 1, { concurrency: 1 }])
      Engine.advance(state, 6_000)
      assert.deepStrictEqual(
        [first, second, third].map(({ finishesAt }) => finishesAt),
        [2_000, 4_000, 6_000]
      )
      const { completed, peakInFlight } = Engine.stats(state, 6_000)
      assert.deepStrictEqual([completed, peakInFlight], [3, 1])
    })

    it("starts the next call of the queue when a caller disconnects, and forgets a queued one that does", () => {
      const latency = { ...instant, baseMillis: 2_000 }
      const state = Engine.make({ concurrency: 1, queue: 2, latency })
      const first = accepted(ask(state, 0, 1))
      const second = accepted(ask(state, 0, 1))
      const third = accepted(ask(state, 0, 1))
      Engine.abort(state, 500, second)
      Engine.abort(state, 700, first)
      assert.strictEqual(third.finishesAt, 2_700)
      assert.deepStrictEqual([second.entry.producedTokens, second.entry.finishedAt], [0, 500])
      const { aborted, completed, inFlight, queued } = Engine.stats(state, 2_700)
      assert.deepStrictEqual([aborted, completed, inFlight, queued], [2, 1, 0, 0])
    })

    it("gives each pool slots and a queue of its own", () => {
      const latency = { ...instant, baseMillis: 2_000 }
      const state = Engine.make({ concurrency: 1, queue: 1, latency, pools: { other: {} } })
      const to = (model: string) => Engine.request(state, 0, { model, inputTokens: 1, outputTokens: 0 })._tag
      const tags = [model, model, model, "other", "other", "other"].map(to)
      assert.deepStrictEqual(tags, ["Accepted", "Accepted", "Rejected", "Accepted", "Accepted", "Rejected"])
    })

    it("limits growth, and reports exactly when the call fits", () => {
      const options: Options = { ramp: { fromPerMinute: 100, growth: 2 }, latency: instant }
      const state = Engine.make(options)
      accepted(ask(state, 0, 100))
      const rejection = rejected(ask(state, 30_000, 50))
      assert.strictEqual(rejection.errorCode, "ramp_limit_exceeded")
      assert.strictEqual(rejection.retryAfterMillis, 30_000)
      assert.strictEqual(ask(state, 59_999, 50)._tag, "Rejected")
      accepted(ask(state, 60_000, 50))
      // The minute before had 100, so 200 are allowed now.
      accepted(ask(state, 60_000, 150))
      rejected(ask(state, 60_000, 1))
    })

    it("forgets usage of more than two minutes ago when it limits growth", () => {
      const state = Engine.make({ ramp: { fromPerMinute: 100, growth: 2 }, latency: instant })
      accepted(ask(state, 0, 100))
      accepted(ask(state, 60_000, 150))
      accepted(ask(state, 115_000, 50))
      // The minute before had 150; 50 of 300 are used.
      assert.strictEqual(rejected(ask(state, 125_000, 251)).errorCode, "ramp_limit_exceeded")
      accepted(ask(state, 125_000, 250))
    })

    it("shares the limit with a neighbour, all the time or in bursts", () => {
      const limits = { inputTokens: { perSecond: 100, burst: 1_000 } }
      const steady = Engine.make({ limits, neighbour: { share: 0.5 }, latency: instant })
      accepted(ask(steady, 0, 1_000))
      assert.closeTo(Engine.left(steady, 10_000, model).inputTokens!, 500, 1e-6)
      const bursts = Engine.make({
        limits,
        neighbour: { share: 3, everyMillis: 10_000, forMillis: 2_000 },
        latency: instant
      })
      assert.closeTo(Engine.left(bursts, 2_000, model).inputTokens!, 600, 1e-6)
      assert.closeTo(Engine.left(bursts, 10_000, model).inputTokens!, 1_000, 1e-6)
      assert.closeTo(Engine.left(bursts, 11_000, model).inputTokens!, 800, 1e-6)
    })

    it("limits the neighbour too", () => {
      for (const window of kinds) {
        const state = Engine.make({ limits: limit(window), neighbour: { share: 5 }, latency: instant })
        assert.isAtLeast(Engine.left(state, 59_000, model).inputTokens!, 0)
        rejected(ask(state, 59_000, 100))
      }
    })
  })

  describe("faults", () => {
    it("hit the calls, the times and the models that they name", () => {
      const state = Engine.make({
        latency: instant,
        faults: [
          { kind: "500", calls: [2] },
          { kind: "529", between: [1_000, 2_000] },
          { kind: "refused", model: "claude-opus" }
        ]
      })
      const at = (now: number, model = "claude-sonnet-5") => {
        const decision = Engine.request(state, now, { model, inputTokens: 1, outputTokens: 0 })
        return decision._tag === "Rejected" ? decision.status : decision._tag
      }
      assert.deepStrictEqual(
        [at(0), at(0), at(999), at(1_000), at(1_999), at(2_000), at(2_000, "claude-opus-5")],
        ["Accepted", 500, "Accepted", 529, 529, "Accepted", "Refused"]
      )
      const stats = Engine.stats(state, 2_000)
      assert.deepStrictEqual([stats.requests, stats.accepted, stats.failed, stats.rejected], [7, 3, 4, 0])
    })

    it("hit at their rate", () => {
      const state = Engine.make({ faults: [{ kind: "529", rate: 0.05 }], latency: instant })
      for (let n = 0; n < 4_000; n++) ask(state, n, 1)
      assert.closeTo(Engine.stats(state, 4_000).failed / 4_000, 0.05, 0.015)
    })

    it("count a request but no tokens for a failure of the provider's own", () => {
      const limits = { requests: { perMinute: 10 }, tokens: { perMinute: 1_000 } }
      const state = Engine.make({ limits, faults: [{ kind: "500" }] })
      ask(state, 0, 500)
      assert.deepStrictEqual(Engine.left(state, 0, model), { requests: 9, tokens: 1_000 })
    })

    it("count the input of a call that is never answered, and hold its slot until the caller gives up", () => {
      const state = Engine.make({
        limits: { tokens: { perMinute: 60_000 } },
        faults: [
          { kind: "timeout", afterMillis: 5_000, calls: [1] },
          { kind: "stall", calls: [2] }
        ]
      })
      const call = accepted(ask(state, 0, 500))
      assert.strictEqual(call.endsAt, 5_000)
      const stalled = accepted(ask(state, 0, 500, 100))
      assert.strictEqual(stalled.endsAt, Infinity)
      assert.strictEqual(Engine.stats(state, 3_600_000).inFlight, 1)
      Engine.abort(state, 3_600_000, stalled)
      assert.strictEqual(Engine.stats(state, 3_600_000).inFlight, 0)
      assert.isBelow(stalled.entry.producedTokens, 100)
    })
  })

  describe("log", () => {
    it("keeps the last requests, and counts all", () => {
      const state = Engine.make({ latency: instant, logSize: 10 })
      for (let n = 0; n < 100; n++) ask(state, n, 1)
      assert.isAtMost(state.log.length, 11)
      assert.strictEqual(state.log.at(-1)!.call, 100)
      assert.strictEqual(Engine.stats(state, 100).completed, 100)
    })

    it.prop(
      "is the same for the same seed and the same calls",
      { history: History },
      ({ history }) => {
        const options: Options = {
          limits: limit("bucket"),
          latency: { noise: 0.5 },
          faults: [{ kind: "500", rate: 0.2 }]
        }
        assert.deepStrictEqual(play(options, history), play(options, history))
      },
      { arbitrary: { runs: 30 } }
    )

    it.prop(
      "accounts for every request",
      { history: History },
      ({ history }) => {
        const state = Engine.make({
          limits: { inputTokens: { perMinute: 600 }, outputTokens: { perMinute: 500 } },
          rejections: "charged",
          faults: [
            { kind: "500", rate: 0.1 },
            { kind: "cut", rate: 0.1 }
          ]
        })
        let at = 0
        for (const [gap, tokens] of history) ask(state, (at += gap), tokens, tokens)
        const stats = Engine.stats(state, at + 1_000_000)
        assert.strictEqual(stats.requests, history.length)
        assert.strictEqual(stats.accepted + stats.rejected + stats.failed, stats.requests)
        assert.strictEqual(stats.completed + stats.aborted + stats.broken + stats.inFlight, stats.accepted)
        assert.strictEqual(stats.inFlight, 0)
        const left = Engine.left(state, at + 1_000_000, model)
        assert.deepStrictEqual(left, { inputTokens: 600, outputTokens: 500 })
      },
      runs
    )
  })

  it("remembers no more requests than a long run can hold", { tags: "full" }, () => {
    const simulator = Simulator.make({ latency: instant, logSize: 0 })
    for (let n = 0; n < 100_010; n++) {
      Simulator.ask(simulator, n, { model, max_tokens: 1, messages: [{ role: "user", content: `${n}` }] })
    }
    assert.isAtMost(simulator.twins.size, 100_000)
  })
})
