import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import { ProviderSim, Simulation } from "floodgate/testing"
import * as Eta from "../../../src/cli/run/eta.ts"
import * as Pipeline from "../../../src/cli/run/pipeline.ts"
import { reply } from "../../../src/cli/run/reply.ts"
import { split } from "../../../src/cli/run/split.ts"
import * as Steps from "../../../src/cli/run/steps.ts"
import * as View from "../../../src/cli/run/view.ts"
import * as Workload from "../../../src/cli/run/workload.ts"

const pool = (more: Partial<Budget.PoolStatus> = {}): Budget.BudgetStatus => ({
  pools: {
    other: { ...more, dimensions: {} } as Budget.PoolStatus,
    "sonnet-5": {
      dimensions: { tokens: { level: 0, capacity: 10_000, perSecond: 1_000 } },
      inFlight: 0,
      allowed: Infinity,
      queued: 0,
      waiting: [],
      cooldown: undefined,
      pace: 1,
      binding: undefined,
      storeAvailable: true,
      ...more
    }
  }
})

/** All calls have used 900 tokens of input and 100 of output, and took 2 s at least. */
const learned = Steps.steps.reduce<Workload.Learned>(
  (learned, step) =>
    [2, 5].reduce(
      (learned, seconds) =>
        Workload.learn(learned, {
          event: "answered",
          agent: "a",
          step,
          reused: false,
          inputTokens: 900,
          outputTokens: 100,
          seconds
        }),
      learned
    ),
  Workload.nothing
)

const agent = (name: string, done: number, open?: number): Eta.Ahead => ({ name, bytes: 9_000, done, open })

const left = (agents: ReadonlyArray<Eta.Ahead>, status = pool()) => Eta.left(agents, learned, status, 2)!

describe("eta", () => {
  it("says nothing while no limit is known, or before the first answer", () => {
    assert.isUndefined(Eta.left([agent("a", 0)], learned, pool({ dimensions: {} }), 1))
    assert.isUndefined(Eta.left([agent("a", 0)], Workload.nothing, pool(), 1))
    assert.isUndefined(Eta.left([agent("a", 0)], learned, { pools: {} }, 1))
  })

  it("is as long as the tokens that are left take to refill, and the last call", () => {
    // 2 x 5 calls of 1,000 tokens at 1,000 a second, of which nothing is there: the tenth is admitted after 10 s.
    assert.closeTo(left([agent("a", 0), agent("b", 0)]), 12, 0.2)
    const full = pool({ dimensions: { tokens: { level: 10_000, capacity: 10_000, perSecond: 1_000 } } })
    assert.closeTo(left([agent("a", 0), agent("b", 0)], full), 10, 0.2)
    const debt = pool({ dimensions: { tokens: { level: -5_000, capacity: 10_000, perSecond: 1_000 } } })
    assert.closeTo(left([agent("a", 0), agent("b", 0)], debt), 17, 0.2)
  })

  it("counts a call that is out as paid for, and waits for what it still takes", () => {
    assert.closeTo(left([agent("a", 4, 0.5)], pool({ inFlight: 1 })), 1.5, 1e-9)
    assert.closeTo(left([agent("a", 4, 60)], pool({ inFlight: 1 })), 0, 1e-9)
    assert.closeTo(left([agent("a", 3, 0.5)], pool({ inFlight: 1 })), 3.5, 0.2)
  })

  it("counts one that stands in the queue as still to be admitted", () => {
    const waiter = {
      agent: "a",
      priority: 0,
      charge: { tokens: 1_000 },
      waited: Duration.seconds(60),
      expected: Duration.seconds(1),
      dimension: "tokens" as const
    }
    assert.closeTo(left([agent("a", 4, 60)], pool({ inFlight: 1, queued: 1, waiting: [waiter] })), 3, 0.2)
    // More wait than a status lists: those that asked first are out.
    assert.closeTo(left([agent("a", 4, 1), agent("b", 4, 1.5)], pool({ inFlight: 1, queued: 1 })), 3, 0.2)
  })

  it("waits for the end of a pause, and for what the orchestrator does after all others", () => {
    const paused = pool({ cooldown: { reason: "rateLimit", left: Duration.seconds(30) } })
    assert.closeTo(left([agent("a", 4)], paused), 32, 0.2)
    assert.closeTo(left([agent("a", 4), agent(Steps.orchestrator, 0)]), 3 + 2, 0.2)
    assert.closeTo(left([agent(Steps.orchestrator, 0, 0)], pool({ inFlight: 1 })), 2, 0.1)
  })

  it("takes a quota for what it is, and figures that a proxy left out for nothing", () => {
    const quota = pool({ dimensions: { tokens: { level: 1_500, capacity: 9_000, perSecond: 0 } } })
    assert.closeTo(left([agent("a", 0)], quota), 2, 0.2)
    const broken = { event: "answered", agent: "a", step: "read", reused: false, seconds: 1 } as const
    const none = Workload.nothing
    assert.strictEqual(Workload.learn(none, { ...broken, inputTokens: Number.NaN, outputTokens: 1 }), none)
    assert.strictEqual(Workload.learn(none, { ...broken, inputTokens: 1, outputTokens: -1 }), none)
  })

  it.effect("is right within an eighth from the first answer on, in a run whose limits bind", () =>
    Effect.gen(function* () {
      const chunks = split([{ path: "a.md", text: "Floodgate holds calls back.\n".repeat(15_000) }], 12)
      const budget = yield* Budget.TokenBudget
      let state = View.start(
        new Map([...chunks.map(({ bytes }, at) => [Pipeline.nameOf(at, 12), bytes] as const), [Steps.orchestrator, 0]]),
        Pipeline.callsOf(12)
      )
      const foreseen: Array<{ readonly at: number; readonly left: number }> = []
      const start = yield* Clock.currentTimeMillis
      const { value } = yield* Simulation.run(
        Pipeline.run({
          task: { prompt: "What must an operator know?", model: "claude-sonnet-5", maxTokens: 500 },
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
      assert.isAbove(seconds, 30)
      assert.isBelow(foreseen[0]!.at, seconds / 8)
      for (const { at, left } of foreseen) assert.closeTo(at + left, seconds, seconds / 8)
    }).pipe(
      Effect.provide(
        LlmClient.layerProvider().pipe(
          Layer.provideMerge(Agents.layer),
          Layer.provideMerge(Budget.layer()),
          Layer.provideMerge(
            ProviderSim.layer({
              limits: { inputTokens: { perSecond: 2_000, burst: 20_000 } },
              latency: { noise: 0.2 },
              outputTokens: 300,
              reply
            })
          )
        )
      )
    )
  )
})
