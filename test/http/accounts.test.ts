/** The accounts that requests count towards: of one organisation, and of unknown credentials. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Budget from "floodgate/Budget"
import * as Estimator from "floodgate/Estimator"
import * as Fetch from "floodgate/fetch"
import * as Governor from "floodgate/Governor"

const url = "https://api.openai.com/v1/chat/completions"
const completion = {
  id: "c1",
  model: "gpt-6",
  choices: [{ index: 0, message: { role: "assistant", content: "Hi" }, finish_reason: "stop" }],
  usage: { prompt_tokens: 10, completion_tokens: 5 }
}
const unauthorized = { error: { message: "Incorrect API key provided", code: "invalid_api_key" } }

type Answer = (key: string) => {
  readonly status?: number
  readonly headers?: Record<string, string>
  readonly until?: Promise<void>
}

/** A governed fetch whose provider answers depending on the key, and the pools and memory that remain. */
const world = Effect.fnUntraced(function* (answer: Answer, options: Budget.Options = {}) {
  const registry: Metric.MetricRegistry = new Map()
  const logged: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => void logged.push(`${logLevel}: ${String(message)}`))
  const live = Governor.layer().pipe(
    Layer.provideMerge(Layer.mergeAll(Budget.layer(options), Estimator.layer())),
    Layer.provideMerge(Layer.succeed(Metric.MetricRegistry, registry)),
    Layer.provideMerge(Logger.layer([logger]))
  )
  const context = yield* Layer.build(Layer.fresh(live))
  const upstream: typeof globalThis.fetch = async (_, init) => {
    const { headers, status = 200, until } = answer(new Headers(init?.headers).get("authorization") ?? "")
    await until
    return Response.json(status < 300 ? completion : unauthorized, { status, headers: headers ?? {} })
  }
  const fetch = yield* Effect.provideContext(Fetch.make({ fetch: upstream }), context)
  const asking = (at: string, headers: Array<[string, string]>) =>
    Effect.promise(async () => {
      const body = JSON.stringify({ model: "gpt-6", messages: [{ role: "user", content: "Hello" }], max_tokens: 10 })
      const response = await fetch(at, { method: "POST", body, headers })
      return { status: response.status, text: await response.text() }
    })
  const tell = (key: string) => asking(url, [["authorization", key]])
  const ask = (key: string) => Effect.map(tell(key), ({ status }) => status)
  const { budget, governor } = yield* Effect.provideContext(
    Effect.all({ budget: Budget.TokenBudget, governor: Governor.Governor }),
    context
  )
  return { ask, asking, budget, governor, logged, registry, tell }
})

describe("the account of a credential", () => {
  it.live("becomes the organisation that a response names, and its keys share one limit", () =>
    Effect.gen(function* () {
      const limits = { requests: { total: 100 } }
      const here = yield* world(() => ({ headers: { "openai-organization": "org-1" } }), { limits })
      for (const key of ["Bearer one", "Bearer two", "Bearer two", "Bearer one", "Bearer two"]) yield* here.ask(key)
      const { pools } = yield* here.budget.status
      const spent = Object.values(pools).map(({ dimensions }) => 100 - dimensions.requests!.level)
      // The pool without an account, the shared one, and the one of the second key before its first answer.
      assert.deepStrictEqual(spent, [4, 1, 0])
      assert.strictEqual(here.logged.length, 1, "a warning, once")
      assert.match(
        here.logged[0]!,
        /^Warn: The credentials of (\S+) and of (\S+) belong to one organisation.*: from now on, both use the pools of \2$/
      )
    }).pipe(Effect.scoped)
  )

  it.live("is forgotten if the provider refuses it, so that invented keys fill no memory", () =>
    Effect.gen(function* () {
      const here = yield* world((key) => (key === "Bearer real" ? {} : { status: 401 }))
      assert.strictEqual(yield* here.ask("Bearer real"), 200)
      // The first refusal of a model has a metric of its own.
      assert.strictEqual(yield* here.ask("Bearer invented"), 401)
      const before = { size: here.registry.size, learned: yield* here.governor.learned }
      for (let n = 0; n < 100; n++) assert.strictEqual(yield* here.ask(`Bearer invented-${n}`), 401)
      assert.strictEqual(Object.keys((yield* here.budget.status).pools).length, 1)
      assert.strictEqual(here.registry.size, before.size)
      assert.deepStrictEqual(yield* here.governor.learned, before.learned)
    }).pipe(Effect.scoped)
  )

  it.live("joins no organisation that a refusal names", () =>
    Effect.gen(function* () {
      for (const status of [401, 403]) {
        let isKnown = false
        const headers = { "openai-organization": "org-1" }
        const here = yield* world((key) => {
          if (key === "Bearer real") return { headers }
          return isKnown ? {} : { status, headers }
        })
        yield* here.ask("Bearer real")
        assert.strictEqual(yield* here.ask("Bearer other"), status)
        isKnown = true
        assert.strictEqual(yield* here.ask("Bearer other"), 200)
        assert.strictEqual(Object.keys((yield* here.budget.status).pools).length, 2)
      }
    }).pipe(Effect.scoped)
  )

  it.live("is the same for a key that is sent twice", () =>
    Effect.gen(function* () {
      const here = yield* world(() => ({}))
      const call = (...keys: ReadonlyArray<string>) =>
        here.asking(
          "https://api.anthropic.com/v1/messages",
          keys.map((key) => ["x-api-key", key])
        )
      yield* call("sk-one")
      yield* call("sk-one", "sk-one")
      yield* call(" sk-one ", "", "sk-one")
      assert.strictEqual(Object.keys((yield* here.budget.status).pools).length, 1)
      yield* call("sk-two", "sk-two")
      assert.strictEqual(Object.keys((yield* here.budget.status).pools).length, 2)
    }).pipe(Effect.scoped)
  )

  it.live("is kept if the provider refuses it later", () =>
    Effect.gen(function* () {
      let isRevoked = false
      const here = yield* world(() => (isRevoked ? { status: 403 } : {}))
      yield* here.ask("Bearer real")
      isRevoked = true
      assert.strictEqual(yield* here.ask("Bearer real"), 403)
      assert.strictEqual(Object.keys((yield* here.budget.status).pools).length, 1)
    }).pipe(Effect.scoped)
  )

  it.live("is refused in the provider's form if too many accounts have calls under way", () =>
    Effect.gen(function* () {
      const release = yield* Deferred.make<void>()
      const wait = Effect.runPromise(Deferred.await(release))
      const here = yield* world((key) => (key === "Bearer one" ? { until: wait } : {}), { maxPools: 1 })
      const call = yield* Effect.forkChild(here.ask("Bearer one"), { startImmediately: true })
      yield* Effect.repeat(here.budget.status, { until: ({ pools }) => Object.keys(pools).length === 1 })
      const refused = yield* here.tell("Bearer two")
      assert.strictEqual(refused.status, 503)
      assert.match(refused.text, /"error":.*"message":"The call needs .*maxPools/)
      yield* Deferred.succeed(release, undefined)
      assert.strictEqual(yield* Fiber.join(call), 200)
      assert.strictEqual((yield* here.tell("Bearer two")).status, 200)
    }).pipe(Effect.scoped)
  )
})
