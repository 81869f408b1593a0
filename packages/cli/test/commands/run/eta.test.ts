import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import type * as Limits from "floodgate/Limits"
import * as LlmClient from "floodgate/LlmClient"
import { ProviderSim, Simulation } from "floodgate/testing"
import * as Eta from "../../../src/commands/run/eta.ts"
import * as Pipeline from "../../../src/commands/run/pipeline.ts"
import { reply } from "../../../src/commands/run/reply.ts"
import { split } from "../../support/atOnce.ts"
import * as Steps from "../../../src/commands/run/steps.ts"
import * as View from "../../../src/commands/run/view.ts"
import * as Workload from "../../../src/commands/run/workload.ts"

const tokens = (level: number, capacity = 10_000, perSecond = 1_000): Budget.PoolStatus["dimensions"] => ({
  tokens: { level, capacity, perSecond, limitPerSecond: perSecond }
})

const pool = (more: Partial<Budget.PoolStatus> = {}): Budget.BudgetStatus => ({
  pools: {
    other: { ...more, dimensions: {} } as Budget.PoolStatus,
    "sonnet-5": {
      dimensions: tokens(0),
      known: [],
      inFlight: 0,
      allowed: Infinity,
      queued: 0,
      waiting: [],
      pause: undefined,
      binding: undefined,
      ...more
    }
  }
})

const answered = (step: string, outputTokens: number) =>
  ({ event: "answered", agent: "a", step, reused: false, inputTokens: 900, outputTokens, seconds: 60 }) as const

/** All calls have used 900 tokens of input and 100 of output, and took 2 s. */
const learned = Steps.steps.reduce((learned, step) => Workload.learn(learned, answered(step, 100), 2), Workload.nothing)

const agent = (name: string, done: number, out?: Eta.RemainingAgent["out"]): Eta.RemainingAgent => ({
  name,
  bytes: 9_000,
  done,
  out
})

/** A call that has been in flight for some seconds, and reserved what it will use. */
const out = (seconds: number, tokens = 1_000) => ({ seconds, charge: { tokens } })

const left = (agents: ReadonlyArray<Eta.RemainingAgent>, status = pool()) => Eta.left(agents, learned, status, 2)!

describe("eta", () => {
  it("is undefined while no limit is known, or while more calls are in flight than were answered", () => {
    assert.isUndefined(Eta.left([agent("a", 0)], learned, pool({ dimensions: {} }), 1))
    assert.isUndefined(Eta.left([agent("a", 0)], Workload.nothing, pool(), 1))
    assert.isUndefined(Eta.left([agent("a", 0)], learned, { pools: {} }, 1))
    const two = Workload.learn(Workload.learn(Workload.nothing, answered("read", 9), 1), answered("read", 9), 1)
    assert.isUndefined(Eta.left([agent("a", 0)], two, pool(), 1))
    const out6 = Array.from({ length: 6 }, (_, n) => agent(`${n}`, 0, out(1)))
    assert.isUndefined(left(out6))
    assert.isNumber(left(out6.slice(1)))
  })

  it("is the time to refill the remaining tokens, plus the last call", () => {
    // 2 x 5 calls of 1,000 tokens at 1,000 a second, with an empty bucket: the tenth is admitted after 10 s.
    assert.closeTo(left([agent("a", 0), agent("b", 0)]), 12, 0.2)
    const full = pool({ dimensions: tokens(10_000) })
    assert.closeTo(left([agent("a", 0), agent("b", 0)], full), 10, 0.2)
    const debt = pool({ dimensions: tokens(-5_000) })
    assert.closeTo(left([agent("a", 0), agent("b", 0)], debt), 17, 0.2)
  })

  it("counts a call in flight as paid for, plus its remaining time", () => {
    assert.closeTo(left([agent("a", 4, out(0.5))]), 1.5, 1e-9)
    assert.closeTo(left([agent("a", 4, out(60))]), 0, 1e-9)
    assert.closeTo(left([agent("a", 3, out(0.5))]), 3.5, 0.2)
  })

  it("counts the expected refund of a call in flight", () => {
    assert.closeTo(left([agent("a", 3, out(0.5, 9_000))]), 3.5, 0.2)
    const debt = pool({ dimensions: tokens(-8_000) })
    // The next call reserves as much: it is admitted after 9 s.
    assert.closeTo(left([agent("a", 3, out(0.5, 9_000))], debt), 11, 0.2)
    assert.closeTo(left([agent("a", 3, out(0.5, 1_000))], debt), 11, 0.2)
  })

  it("expects calls to vary as before, so that the agent with long calls ends last", () => {
    const read = (outputTokens: number, seconds: number) => (learned: Workload.AnsweredCalls) =>
      Workload.learn(learned, answered("finish", outputTokens), seconds)
    const mixed = read(1_100, 12)(learned)
    const plenty = pool({ dimensions: tokens(1e6, 1e6) })
    assert.closeTo(Eta.left([agent("a", 4), agent("b", 4)], mixed, plenty, 2)!, 12, 1e-9)
  })

  it("includes the rest of a pause, and the orchestrator's call after all others", () => {
    const paused = pool({ pause: { reason: "rateLimit", leftMillis: 30_000 } })
    assert.closeTo(left([agent("a", 4)], paused), 32, 0.2)
    assert.closeTo(left([agent("a", 4), agent(Steps.orchestrator, 0)]), 3 + 2, 0.2)
    assert.closeTo(left([agent(Steps.orchestrator, 0, out(0))]), 2, 0.1)
    assert.strictEqual(left([agent(Steps.orchestrator, 1)]), 0)
  })

  it("treats a quota as one, and ignores answers whose usage a proxy left out", () => {
    const quota = pool({ dimensions: tokens(1_500, 9_000, 0) })
    assert.closeTo(left([agent("a", 0)], quota), 2, 0.2)
    const none = Workload.nothing
    assert.strictEqual(Workload.learn(none, { ...answered("read", 1), inputTokens: Number.NaN }, 1), none)
    assert.strictEqual(Workload.learn(none, answered("read", -1), 1), none)
  })

  const documents = [{ path: "a.md", text: "Floodgate holds calls back.\n".repeat(15_000) }]
  /** Answers of 30 to 570 tokens, 300 in the mean. */
  const outputTokens = (_: unknown, random: number) => 30 + 540 * random

  const runs: ReadonlyArray<{
    readonly when: string
    readonly limits: Limits.Limits
    readonly known: boolean
    readonly noise?: number
  }> = [
    { when: "input is what binds", limits: { inputTokens: { perSecond: 2_000, burst: 20_000 } }, known: false },
    {
      when: "a limit on output is learned, of which the first calls reserve many times what they use",
      limits: { outputTokens: { perMinute: 12_000, window: "bucket" } },
      known: false
    },
    {
      when: "a limit on output was given",
      limits: { outputTokens: { perMinute: 12_000, window: "bucket" } },
      known: true
    },
    { when: "requests are what binds", limits: { requests: { perMinute: 100 } }, known: false },
    { when: "nothing binds and answers vary", limits: { requests: { perMinute: 10_000 } }, known: true, noise: 0.3 }
  ]
  for (const { known, limits, noise, when } of runs) {
    it.effect(
      `is accurate to 55 % of the run from the start, and to 30 % from its middle on, when ${when}`,
      () =>
        Effect.gen(function* () {
          const chunks = split(documents, 12)
          const budget = yield* Budget.TokenBudget
          let state = View.start(
            new Map([
              ...chunks.map(({ bytes }, at) => [Pipeline.nameOf(at, 12), bytes] as const),
              [Steps.orchestrator, 0]
            ]),
            Pipeline.callsOf(12)
          )
          const foreseen: Array<{ readonly at: number; readonly left: number }> = []
          const start = yield* Clock.currentTimeMillis
          const { value } = yield* Simulation.run(
            Pipeline.run({
              task: { prompt: "What must an operator know?", model: "claude-sonnet-5", maxTokens: 2_000 },
              chunks,
              finished: new Map(),
              record: () => Effect.void,
              report: (event) =>
                Effect.gen(function* () {
                  const at = ((yield* Clock.currentTimeMillis) - start) / 1_000
                  state = View.step(state, event, at)
                  const left = Eta.left(View.ahead(state, at), state.learned, yield* budget.status, 12)
                  if (left !== undefined) foreseen.push({ at, left })
                })
            })
          )
          const { seconds } = value
          assert.isBelow(foreseen[0]!.at, seconds / 4)
          for (const { at, left } of foreseen) {
            assert.closeTo(at + left, seconds, seconds * (at < seconds / 2 ? 0.55 : 0.3))
          }
        }).pipe(
          Effect.provide(
            LlmClient.layerProvider().pipe(
              Layer.provideMerge(Agents.layer),
              Layer.provideMerge(Layer.effect(Budget.TokenBudget, Effect.map(Budget.TokenBudget, Pipeline.reporting))),
              Layer.provideMerge(Budget.layer(known ? { limits } : {})),
              Layer.provideMerge(ProviderSim.layer({ limits, latency: { noise: noise ?? 0.1 }, outputTokens, reply }))
            )
          )
        ),
      { tags: "full" }
    )
  }
})
