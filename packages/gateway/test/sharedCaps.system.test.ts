/** Caps in dollars that two gateways keep together, over real HTTP and a store in memory. They wait only for conditions. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { createHash } from "node:crypto"
import { until } from "../../../test/support/gateway.ts"
import { message } from "../../../test/support/httpProvider.ts"
import { serve } from "../../../test/support/httpServer.ts"

const prices = { "claude-test": { input: 0, output: 10 } }
const adminToken = "operators-only-1234"

/** A store in memory that returns the time, as Redis does. */
const memory = (): BudgetStore.Store => {
  const values = new Map<string, BudgetStore.Stored>()
  const now = (stored: BudgetStore.Stored | undefined) => stored && { ...stored, utc: Date.now() }
  return {
    read: (key) => Effect.sync(() => now(values.get(key))),
    swap: (key, expected, next) =>
      Effect.sync(() => {
        if (values.get(key)?.version === expected) values.set(key, next)
        return now(values.get(key))
      })
  }
}

/** Answers that use 1,000 tokens of output, which cost a cent. */
const provider = serve((_, response) => {
  setTimeout(() => {
    response
      .writeHead(200, { "content-type": "application/json" })
      .end(JSON.stringify(message(1, 1_000, "claude-test")))
  }, 20)
})

const gateway = (
  store: BudgetStore.Store,
  upstream: string,
  options: Gateway.Options
): Effect.Effect<Gateway.Gateway["Service"], Gateway.CannotListen, Scope.Scope> =>
  Effect.gen(function* () {
    const context = yield* Layer.build(
      Governor.layer({ prices }).pipe(
        Layer.provideMerge(Budget.layer()),
        Layer.provideMerge(BudgetStore.layer(store)),
        Layer.provideMerge(Layer.succeed(Metric.MetricRegistry, new Map()))
      )
    )
    return yield* Gateway.make({ upstreams: { anthropic: upstream }, drain: "20 millis", ...options }).pipe(
      Effect.provideContext(context)
    )
  })

/** A call of at most three cents. */
const ask = (url: string, headers: Record<string, string> = {}): Effect.Effect<number> =>
  Effect.promise(async () => {
    const response = await fetch(`${url}/v1/messages`, {
      method: "POST",
      headers: { "x-api-key": "sk-one-x9Yz", "anthropic-version": "2023-06-01", ...headers },
      body: JSON.stringify({ model: "claude-test", max_tokens: 3_000, messages: [{ role: "user", content: "Hello" }] })
    })
    await response.text()
    return response.status
  })

interface Shown {
  readonly id: string
  readonly name: string
  readonly dollars: number
  readonly spent: number
}

const caps = (url: string): Effect.Effect<ReadonlyArray<Shown>> =>
  Effect.promise(async () => ((await (await fetch(`${url}/floodgate/status`)).json()) as { caps: Array<Shown> }).caps)

const change = (url: string, body: object, token = adminToken) =>
  Effect.promise(async () => {
    const response = await fetch(`${url}/floodgate/caps`, {
      method: "POST",
      headers: { "x-floodgate-admin": token },
      body: JSON.stringify(body)
    })
    return { status: response.status, body: (await response.json()) as { readonly error?: string } & Partial<Shown> }
  })

describe("a cap of two gateways", { timeout: 20_000 }, () => {
  it.live("becomes one cap for both when a reload gives its rule a name", () =>
    Effect.gen(function* () {
      const upstream = yield* provider
      const store = memory()
      const cap = { dollars: 0.05, per: "day" as const }
      const named = { rules: [{ name: "team", cap }] }
      const first = yield* gateway(store, upstream.url, { rules: [{ cap }] })
      assert.strictEqual(yield* ask(first.url), 200)
      yield* first.reload({ upstreams: { anthropic: upstream.url }, ...named })
      const second = yield* gateway(store, upstream.url, named)
      const statuses = yield* Effect.forEach(Array.from({ length: 10 }), (_, n) =>
        ask(n % 2 === 0 ? first.url : second.url)
      )
      const done = statuses.filter((status) => status === 200).length
      // The third reserves the last three cents. With a cap for each gateway, five would fit.
      assert.strictEqual(done, 3)
    }).pipe(Effect.scoped)
  )

  it.live("is never exceeded, is used up, and then answers with 402", () =>
    Effect.gen(function* () {
      const upstream = yield* provider
      const store = memory()
      const rules = [{ cap: { dollars: 0.2, per: "day" as const } }]
      const two = [yield* gateway(store, upstream.url, { rules }), yield* gateway(store, upstream.url, { rules })]
      const calls = Array.from({ length: 40 }, (_, n) => ask(two[n % 2]!.url))
      const statuses = yield* Effect.all(calls, { concurrency: 10 })
      const sent = upstream.requests.length
      assert.isAtMost(sent * 0.01, 0.2)
      // What is left does not hold the three cents that a call may cost.
      assert.isAtLeast(sent * 0.01, 0.18)
      assert.deepStrictEqual(
        statuses.toSorted((a, b) => a - b),
        [...Array.from({ length: sent }, () => 200), ...Array.from({ length: 40 - sent }, () => 402)]
      )
      const both = two.map(({ url }) => until(caps(url), ([cap]) => Math.abs(cap!.spent - sent * 0.01) < 1e-9))
      yield* Effect.all(both)
      // The store keeps it, and not the file of a gateway.
      assert.deepStrictEqual(yield* two[0]!.spent, {})
    }).pipe(Effect.scoped)
  )

  it.live("is one for the job whose agents call through both", () =>
    Effect.gen(function* () {
      const upstream = yield* provider
      const store = memory()
      const rules = [{ capPerJob: { agents: 8, dollars: 0.2 } }]
      const two = [yield* gateway(store, upstream.url, { rules }), yield* gateway(store, upstream.url, { rules })]
      const calls = Array.from({ length: 60 }, (_, n) =>
        ask(two[n % 2]!.url, { "x-floodgate-job": "one", "x-floodgate-agent": `a${n % 12}` })
      )
      const statuses = yield* Effect.all(calls, { concurrency: 12 })
      const sent = upstream.requests.length
      assert.isAtMost(sent * 0.01, 0.2)
      assert.isAtLeast(sent * 0.01, 0.18)
      assert.deepStrictEqual(new Set(statuses), new Set([200, 400]))
      assert.strictEqual(statuses.filter((status) => status === 200).length, sent)
      const trees = (url: string) =>
        Effect.promise(
          async () =>
            ((await (await fetch(`${url}/floodgate/status`)).json()) as { trees: Array<{ agents: number }> }).trees
        )
      for (const { url } of two) yield* until(trees(url), ([tree]) => tree?.agents === 8)
    }).pipe(Effect.scoped)
  )

  it.live("takes over what gateways of 0.3 have kept in their files", () =>
    Effect.gen(function* () {
      const upstream = yield* provider
      const store = memory()
      const rules = [{ cap: { dollars: 1 } }]
      const id = JSON.stringify(["rule", "all callers", "", null])
      const spent = (amount: number) => ({ [id]: { total: amount, cells: [{ ends: null, amount }] } })
      const one = yield* gateway(store, upstream.url, { rules, spent: spent(4e8) })
      const other = yield* gateway(store, upstream.url, { rules, spent: spent(5e8) })
      for (const { url } of [one, other]) yield* until(caps(url), ([cap]) => Math.abs(cap!.spent - 0.9) < 1e-9)
      assert.strictEqual(yield* ask(one.url), 200)
    }).pipe(Effect.scoped)
  )

  it.live("is raised and reset by an operator, in both gateways, which is logged", () =>
    Effect.gen(function* () {
      const upstream = yield* provider
      const store = memory()
      const rules = [{ cap: { dollars: 0.03 } }]
      const one = yield* gateway(store, upstream.url, { rules, adminToken })
      const other = yield* gateway(store, upstream.url, { rules })
      assert.strictEqual(yield* ask(one.url), 200)
      assert.strictEqual(yield* until(ask(other.url), (status) => status === 402), 402)
      const [{ id }] = (yield* caps(one.url)) as [Shown]
      const raised = yield* change(one.url, { cap: "all callers", dollars: 1 })
      assert.deepStrictEqual([raised.status, raised.body.dollars, raised.body.spent], [200, 1, 0.01])
      assert.strictEqual(yield* until(ask(other.url), (status) => status === 200), 200)
      const reset = yield* change(one.url, { cap: id, reset: true })
      assert.deepStrictEqual([reset.status, reset.body.spent], [200, 0])
    }).pipe(
      Effect.scoped,
      Effect.provide(
        Logger.layer([
          Logger.make(({ message }) => {
            logged.push(message)
          })
        ])
      ),
      Effect.tap(() =>
        Effect.sync(() => {
          const events = logged.flat().filter((each) => (each as { event?: string }).event === "cap")
          assert.deepStrictEqual(
            events.map((each) => (each as { raised: boolean }).raised),
            [true, false]
          )
        })
      )
    )
  )

  it.live("is raised for an agent and a key that call through the other gateway alone", () =>
    Effect.gen(function* () {
      const upstream = yield* provider
      const store = memory()
      const agent = { "x-floodgate-agent": "nightly" }
      for (const rule of [{ name: "each", capPerAgent: { dollars: 0.03 } }, { capPerKey: { dollars: 0.03 } }]) {
        const one = yield* gateway(store, upstream.url, { rules: [rule] })
        const other = yield* gateway(store, upstream.url, { rules: [rule], adminToken })
        assert.strictEqual(yield* ask(one.url, agent), 200)
        assert.strictEqual(yield* until(ask(one.url, agent), (status) => status === 402), 402)
        const [{ id, name }] = (yield* caps(one.url)) as [Shown]
        assert.deepStrictEqual(yield* caps(other.url), [])
        const raised = yield* change(other.url, { cap: id, dollars: 1 })
        assert.deepStrictEqual([raised.status, raised.body.name, raised.body.dollars], [200, name, 1])
        assert.strictEqual(yield* until(ask(one.url, agent), (status) => status === 200), 200)
        // No rule gives these a cap.
        const [kind] = JSON.parse(id) as [string]
        for (const wrong of [`["${kind}","rule no","a",null]`, `["rule","rule each","",null]`, "[]", '{"cap":1}']) {
          assert.strictEqual((yield* change(other.url, { cap: wrong, dollars: 1 })).status, 404, wrong)
        }
      }
    }).pipe(Effect.scoped)
  )

  it.live("is never changed with a secret that agents have", () =>
    Effect.gen(function* () {
      const sha256 = createHash("sha256").update(adminToken).digest("hex").toUpperCase()
      for (const [options, secret] of [
        [{ token: adminToken }, "the token"],
        [{ keys: [{ name: "search", sha256 }], credentials: { anthropic: null } }, "the keys"]
      ] as const) {
        const made = gateway(memory(), "http://127.0.0.1:9", { ...options, adminToken })
        assert.match(String(yield* Effect.exit(made)), new RegExp(`adminToken: expected another secret than ${secret}`))
      }
    }).pipe(Effect.scoped)
  )

  it.live("is changed only by an operator, and only by a complete change", () =>
    Effect.gen(function* () {
      const upstream = yield* provider
      const rules = [{ cap: { dollars: 0.03 } }]
      const locked = yield* gateway(memory(), upstream.url, { rules })
      const { url } = yield* gateway(memory(), upstream.url, { rules, adminToken })
      const refused: ReadonlyArray<readonly [string, object, number, RegExp, string?]> = [
        [locked.url, { cap: "all callers", dollars: 9 }, 403, /option adminToken/],
        [url, { cap: "all callers", dollars: 9 }, 401, /x-floodgate-admin/, "operators-only-9999"],
        [url, { cap: "all callers" }, 400, /expected dollars, reset, or both/],
        [url, { cap: "all callers", dollars: -1 }, 400, /dollars: expected a number > 0/],
        [url, { cap: 7, reset: true }, 400, /cap: expected the name or the id/],
        [url, { cap: "nobody", reset: true }, 404, /use an id of \/floodgate\/status/],
        [url, { cap: "x".repeat(20_000), reset: true }, 413, /at most 10000 characters/],
        [url, [], 400, /expected a JSON object/]
      ]
      for (const [at, body, status, message, token] of refused) {
        const { body: answer, status: got } = yield* change(at, body, token)
        assert.strictEqual(got, status, JSON.stringify(body).slice(0, 80))
        assert.match(answer.error!, message)
      }
      const [cap] = yield* caps(url)
      assert.deepStrictEqual([cap!.dollars, cap!.spent], [0.03, 0])
    }).pipe(Effect.scoped)
  )
})

const logged: Array<unknown> = []
