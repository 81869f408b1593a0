import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import * as Budget from "floodgate/Budget"
import * as Estimator from "floodgate/Estimator"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { until } from "../../../test/support/gateway.ts"
import { event, message } from "../../../test/support/httpProvider.ts"
import { type Handler, serve, type TestServer } from "../../../test/support/httpServer.ts"

// These use real HTTP, so they run on the real clock. They wait only for conditions.

/** A million tokens cost a dollar of input and ten of output, so 100,000 tokens of output cost a dollar. */
const prices = {
  "claude-test": { input: 1, output: 10 },
  "gpt-test": { input: 1, output: 10 },
  "gpt-long": { input: 1, output: 10, maxOutput: 100_000 }
}

interface World {
  readonly url: string
  readonly upstream: TestServer
  readonly gateway: Gateway.Gateway["Service"]
}

const world = Effect.fnUntraced(function* (
  answer: Handler,
  options: Gateway.Options,
  governor: Layer.Layer<Governor.Governor, never, Budget.TokenBudget> = Governor.layer({ prices })
): Effect.fn.Return<World, Gateway.CannotListen, Scope.Scope> {
  const upstream = yield* serve(answer)
  const context = yield* Layer.build(
    governor.pipe(
      Layer.provideMerge(Budget.layer()),
      Layer.provideMerge(Layer.succeed(Metric.MetricRegistry, new Map()))
    )
  )
  const gateway = yield* Gateway.make({
    upstreams: { anthropic: upstream.url, openai: upstream.url },
    drain: "20 millis",
    ...options
  }).pipe(Effect.provideContext(context))
  return { url: gateway.url, upstream, gateway }
})

const gives =
  (output: number): Handler =>
  (_, response) =>
    void response
      .writeHead(200, { "content-type": "application/json" })
      .end(JSON.stringify(message(0, output, "claude-test")) /* the prompt is free */)

interface Got {
  readonly status: number
  readonly retry: string | null
  readonly text: string
}

const ask = (
  url: string,
  headers: Record<string, string> = {},
  more: object = {},
  path = "/v1/messages"
): Effect.Effect<Got, unknown> =>
  Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(`${url}${path}`, {
        method: "POST",
        signal,
        headers: { "x-api-key": "sk-one-x9Yz", "anthropic-version": "2023-06-01", ...headers },
        body: JSON.stringify({
          model: "claude-test",
          max_tokens: 100_000,
          messages: [{ role: "user", content: "Hello" }],
          ...more
        })
      })
      return { status: response.status, retry: response.headers.get("x-should-retry"), text: await response.text() }
    },
    catch: (thrown) => thrown
  })

const agent = (name: string) => ({ "x-floodgate-agent": name })

/** The data that the page shows now. */
const figures = (url: string) =>
  Effect.promise(async () => {
    const response = await fetch(`${url}/floodgate/status`)
    return (await response.json()) as {
      readonly agents: ReadonlyArray<{ readonly name: string; readonly dollars: number; readonly unpriced: number }>
      readonly caps: ReadonlyArray<{
        readonly name: string
        readonly dollars: number
        readonly spent: number
        readonly held: number
        readonly isReached: boolean
        readonly queued: number
        readonly waiting: ReadonlyArray<{ readonly agent: string; readonly dollars: number }>
      }>
    }
  })

describe("dollars at the gateway", () => {
  // Regression: each of these spent more than the cap.
  it.live.each([
    { what: "several answers, without a limit of output", body: { n: 20 }, cap: 2, statuses: [402] },
    {
      what: "several answers, without a limit, of which all fit",
      body: { n: 20 },
      cap: 40,
      statuses: [200, 402]
    },
    { what: "several answers", body: { n: 3, max_completion_tokens: 100_000 }, cap: 2.9, statuses: [402] },
    {
      what: "answers in the background",
      path: "/v1/responses",
      body: { input: "Hello", background: true, max_output_tokens: 100_000 },
      cap: 1.9,
      statuses: [200, 400]
    }
  ])("keeps a cap with $what", ({ body, cap, path = "/v1/chat/completions", statuses }) =>
    Effect.gen(function* () {
      const queued = { id: "resp_1", object: "response", status: "queued", background: true, output: [], usage: null }
      const choices = { id: "c", choices: [], usage: { prompt_tokens: 10, completion_tokens: 20 * 100_000 } }
      const here = yield* world(
        (request, response) =>
          void response
            .writeHead(200, { "content-type": "application/json" })
            .end(JSON.stringify(request.url === "/v1/responses" ? queued : choices)),
        { rules: [{ cap: { dollars: cap } }] }
      )
      const messages = [{ role: "user", content: "Hello" }]
      const got = yield* Effect.forEach(statuses, () =>
        ask(here.url, {}, { model: "gpt-long", max_tokens: undefined, messages, ...body }, path)
      )
      assert.deepStrictEqual(
        got.map(({ status }) => status),
        statuses
      )
      const { caps } = yield* figures(here.url)
      assert.isAtMost(caps[0]!.spent, cap)
      assert.strictEqual(caps[0]!.held, 0)
    })
  )

  it.live("refuses an agent over its daily cap with a status that clients do not retry, and serves the others", () =>
    Effect.gen(function* () {
      const here = yield* world(gives(100_000), { rules: [{ capPerAgent: { dollars: 2.5, per: "day" } }] })
      const statuses = yield* Effect.forEach([1, 2, 3], () => ask(here.url, agent("a")))
      assert.deepStrictEqual(
        statuses.map(({ status }) => status),
        [200, 200, 402]
      )
      assert.strictEqual(statuses[2]!.retry, "false")
      const { error, type } = JSON.parse(statuses[2]!.text)
      assert.deepStrictEqual([type, error.type], ["error", "billing_error"])
      assert.match(
        error.message,
        /may cost \$1\.0\d(?: at most \(.*\))?, but only \$0\.50 is left of the cap of \$2\.50 a day for agent a \(\$2\.00 spent, \$0\.00 reserved by running calls\): wait until \d{4}-\d\d-\d\dT00:00:00\.000Z, lower max_tokens/
      )
      // Less output still fits.
      assert.strictEqual((yield* ask(here.url, agent("a"), { max_tokens: 10_000 })).status, 200)
      assert.strictEqual((yield* ask(here.url, agent("b"))).status, 200)
      const openai = yield* ask(here.url, agent("a"), { model: "gpt-test" }, "/v1/chat/completions")
      assert.deepStrictEqual([openai.status, openai.retry], [402, "false"])
      assert.match(JSON.parse(openai.text).error.message, /the cap of \$2\.50 a day for agent a/)
      assert.strictEqual(here.upstream.requests.length, 4)
    })
  )

  it.live("spends no more than the cap, however many calls come at once, and refuses none that fits", () =>
    Effect.gen(function* () {
      let max = 0
      let open = 0
      const answer: Handler = (_, response) => {
        max = Math.max(max, ++open)
        setTimeout(() => {
          open--
          response
            .writeHead(200, { "content-type": "application/json" })
            .end(JSON.stringify(message(1, 25_000, "claude-test")))
        }, 5)
      }
      const here = yield* world(answer, { rules: [{ cap: { dollars: 4 } }] })
      const got = yield* Effect.forEach(Array.from({ length: 40 }), (_, n) => ask(here.url, agent(`a${n}`)), {
        concurrency: "unbounded"
      })
      const done = got.filter(({ status }) => status === 200).length
      // Each reserves a dollar and costs a quarter, so the last one that fits starts when three are spent.
      assert.strictEqual(done, 12)
      assert.strictEqual(here.upstream.requests.length, 12)
      assert.isAtMost(max, 3)
      assert.isTrue(got.every(({ status }) => status === 200 || status === 402))
      const { caps } = yield* figures(here.url)
      assert.deepStrictEqual(
        caps.map(({ held, name, spent }) => [name, spent < 3.01, held]),
        [["all callers", true, 0]]
      )
    })
  )

  it.live("applies all matching caps for keys and headers, and reveals no key", () =>
    Effect.gen(function* () {
      const here = yield* world(gives(100_000), {
        rules: [
          { agent: "boss", capPerKey: { dollars: 100 } },
          { headers: { "x-team": "search" }, cap: { dollars: 1.5 } },
          { headers: { "x-team": "ads" }, cap: { dollars: 1.5 } },
          { capPerKey: { dollars: 3.5 } }
        ]
      })
      const team = { "x-team": "search" }
      assert.strictEqual((yield* ask(here.url, { ...team, ...agent("a") })).status, 200)
      const pot = yield* ask(here.url, { ...team, ...agent("b") })
      assert.match(pot.text, /the cap of \$1\.50 for callers with some x-team \([\da-f]{8}\)/)
      // The same key, whatever the agents call themselves.
      const rest = yield* Effect.forEach(["c", "d", "e"], (name) => ask(here.url, agent(name)))
      assert.deepStrictEqual(
        rest.map(({ status }) => status),
        [200, 200, 402]
      )
      assert.match(rest[2]!.text, /the cap of \$3\.50 for the key key-[\da-f]{8}/)
      assert.strictEqual((yield* ask(here.url, agent("boss"))).status, 200)
      assert.strictEqual((yield* ask(here.url, { ...agent("c"), "x-api-key": "sk-two" })).status, 200)
      const spent = JSON.stringify(yield* here.gateway.spent)
      const page = JSON.stringify(yield* figures(here.url))
      const metrics = yield* Effect.promise(async () => (await fetch(`${here.url}/metrics`)).text())
      for (const text of [spent, page, metrics, rest[2]!.text]) assert.notMatch(text, /sk-|x9Yz|search|ads/)
      // A short hash tells rules apart that nobody named.
      const left = metrics.matchAll(
        /cap_left_dollars\{[^}]*cap="callers with some x-team \([\da-f]{8}\)"[^}]*\} (\d\.\d)/g
      )
      assert.deepStrictEqual(Array.from(left, ([, dollars]) => dollars).sort(), ["0.4", "1.5"])
    })
  )

  it.live("calls the caps of a rule by its name: in refusals, on the page and in metrics", () =>
    Effect.gen(function* () {
      const here = yield* world(gives(100_000), {
        rules: [
          { name: "search", headers: { "x-team": "search-8f2" }, cap: { dollars: 1.5 }, capPerAgent: { dollars: 5 } },
          { name: "ads", headers: { "x-team": "ads-77c" }, cap: { dollars: 9 }, capPerKey: { dollars: 1.5 } }
        ]
      })
      const search = { "x-team": "search-8f2" }
      const ads = { "x-team": "ads-77c", ...agent("b") }
      yield* ask(here.url, { ...search, ...agent("a") })
      assert.match((yield* ask(here.url, { ...search, ...agent("a") })).text, /the cap of \$1\.50 for search \(/)
      yield* ask(here.url, ads)
      assert.match((yield* ask(here.url, ads)).text, /the cap of \$1\.50 for the key key-[\da-f]{8} \(ads\) \(/)
      const page = yield* figures(here.url)
      assert.includeMembers(
        page.caps.map(({ name }) => name),
        ["search", "ads", "agent a (search)"]
      )
      const metrics = yield* Effect.promise(async () => (await fetch(`${here.url}/metrics`)).text())
      assert.match(metrics, /cap_left_dollars\{[^}]*cap="search"[^}]*\} 0\.4/)
      assert.match(metrics, /cap_left_dollars\{[^}]*cap="ads"[^}]*\} 7\.9/)
      for (const text of [JSON.stringify(page), metrics]) assert.notMatch(text, /8f2|77c|\(2\)/)
    })
  )

  it.live("keeps what a rule has spent when it is given a name, and when its conditions change after that", () =>
    Effect.gen(function* () {
      const cap = { dollars: 2.5 }
      const first = yield* world(gives(100_000), { rules: [{ agent: "a", cap, capPerKey: cap }] })
      assert.strictEqual((yield* ask(first.url, agent("a"))).status, 200)
      yield* first.gateway.reload({
        upstreams: { anthropic: first.upstream.url },
        rules: [{ name: "team", agent: "a", cap, capPerKey: cap }]
      })
      assert.strictEqual((yield* ask(first.url, agent("a"))).status, 200)
      assert.strictEqual((yield* ask(first.url, agent("a"))).status, 402)
      const spent = JSON.parse(JSON.stringify(yield* first.gateway.spent))
      const second = yield* world(gives(100_000), { rules: [{ name: "team", agent: "*", cap }], spent })
      assert.match((yield* ask(second.url, agent("other"))).text, /\$0\.50 is left of the cap of \$2\.50 for team/)
      // The state of an earlier version has no names.
      const before = yield* world(gives(100_000), { rules: [{ agent: "a", cap }] })
      yield* ask(before.url, agent("a"))
      const upgraded = yield* world(gives(100_000), {
        rules: [{ name: "team", agent: "a", cap: { dollars: 1.5 } }],
        spent: JSON.parse(JSON.stringify(yield* before.gateway.spent))
      })
      assert.strictEqual((yield* ask(upgraded.url, agent("a"))).status, 402)
    })
  )

  it.live("refuses two rules of one name, and a name that cannot be shown", () =>
    Effect.gen(function* () {
      const refused = (...rules: NonNullable<Gateway.Options["rules"]>) =>
        Effect.map(Effect.exit(world(gives(1), { upstreams: undefined, rules })), String)
      const twice = yield* refused({ name: "search" }, { agent: "a" }, { name: "search", agent: "b" })
      assert.include(twice, 'rules[2].name: expected a name that no other rule has, got "search"')
      // The description of a rule without a name.
      assert.include(
        yield* refused({ name: "all callers" }, {}),
        "rules[0].name: expected a name that no other rule has"
      )
      for (const name of ["", " a", "a\nb", "x".repeat(65)]) {
        assert.include(yield* refused({ name }), "rules[0].name: expected a name of 1 to 64 characters")
      }
    })
  )

  it.live("shows what agents spent, and what is left, on the page and to Prometheus", () =>
    Effect.gen(function* () {
      const here = yield* world(gives(50_000), { rules: [{ cap: { dollars: 10, per: "5 hours" } }] })
      yield* ask(here.url, agent("a"))
      yield* ask(here.url, agent("a"))
      yield* ask(here.url, agent("b"))
      const { agents, caps } = yield* figures(here.url)
      const spent = (name: string) => Math.round(agents.find((one) => one.name === name)!.dollars * 100) / 100
      assert.deepStrictEqual([spent("a"), spent("b")], [1, 0.5])
      assert.deepInclude(caps[0], { name: "all callers", dollars: 10, held: 0 })
      const metrics = yield* Effect.promise(async () => (await fetch(`${here.url}/metrics`)).text())
      assert.match(metrics, /floodgate_gateway_dollars\{[^}]*agent="a"[^}]*\} 1\.00/)
      assert.match(metrics, /floodgate_gateway_cap_left_dollars\{[^}]*cap="all callers"[^}]*\} 8\.4/)
      assert.match(metrics, /floodgate_dollars\{[^}]*\} 1\.5/)
    })
  )

  it.live("shows no cap that was removed, and nothing after it has closed", () =>
    Effect.gen(function* () {
      const registry = new Map<string, Metric.Metric.Metadata<unknown, unknown>>()
      const shown = () => [...registry.values()].flatMap(({ id, type }) => (type === "Gauge" ? [id] : []))
      const scope = yield* Scope.make()
      const rules = [{ cap: { dollars: 10 } }, { cap: { dollars: 20, per: "day" as const } }]
      const gateway = yield* Gateway.make({ rules }).pipe(
        Effect.provide(Governor.layer({ prices }).pipe(Layer.provideMerge(Budget.layer()))),
        Scope.provide(scope),
        Effect.provideService(Metric.MetricRegistry, registry as never)
      )
      const cap = ["dollars", "left_dollars", "reached", "waiting"].map((name) => `floodgate_gateway_cap_${name}`)
      assert.deepStrictEqual(shown(), ["floodgate_gateway_open", ...cap, ...cap])
      yield* gateway.reload({ rules: rules.slice(1) })
      assert.deepStrictEqual(shown(), ["floodgate_gateway_open", ...cap])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(shown(), [])
    })
  )

  it.live("releases the reservation of a client that hangs up, and spends what it received", () =>
    Effect.gen(function* () {
      const here = yield* world(() => {}, { rules: [{ cap: { dollars: 10 } }] })
      const call = yield* Effect.forkChild(ask(here.url))
      const held = yield* until(figures(here.url), ({ caps }) => caps[0]!.held > 0)
      assert.isAbove(held.caps[0]!.held, 1)
      yield* until(
        Effect.sync(() => here.upstream.requests.length),
        (sent) => sent === 1
      )
      yield* Fiber.interrupt(call)
      const after = yield* until(figures(here.url), ({ caps }) => caps[0]!.held === 0)
      // Its prompt, of a few tokens.
      assert.isAbove(after.caps[0]!.spent, 0)
      assert.isBelow(after.caps[0]!.spent, 0.001)
    })
  )

  it.live("spends nothing on a redirect, which is passed on at once", () =>
    Effect.gen(function* () {
      const to = { location: "http://localhost/elsewhere" }
      const here = yield* world((_, response) => void response.writeHead(307, to).end(), {
        rules: [{ cap: { dollars: 10 } }]
      })
      const { headers, status } = yield* Effect.promise(() =>
        fetch(`${here.url}/v1/messages`, {
          method: "POST",
          redirect: "manual",
          headers: { "x-api-key": "k" },
          body: JSON.stringify({ model: "claude-test", max_tokens: 100_000, messages: [] })
        })
      )
      assert.deepStrictEqual([status, headers.get("location")], [307, to.location])
      const { caps } = yield* figures(here.url)
      assert.deepInclude(caps[0], { spent: 0, held: 0 })
      assert.strictEqual(here.upstream.requests.length, 1)
    })
  )

  it.live("counts the received part of a stream that is cancelled", () =>
    Effect.gen(function* () {
      const answer: Handler = (_, response) => {
        response.writeHead(200, { "content-type": "text/event-stream" })
        response.write(
          event("message_start", { message: { id: "m", usage: { input_tokens: 200_000, output_tokens: 1 } } }) +
            event("content_block_start", { index: 0, content_block: { type: "text", text: "" } }) +
            event("content_block_delta", { index: 0, delta: { type: "text_delta", text: "x".repeat(27_000) } })
        )
      }
      const here = yield* world(answer, { rules: [{ cap: { dollars: 10 } }] })
      yield* Effect.promise(async () => {
        const controller = new AbortController()
        const response = await fetch(`${here.url}/v1/messages`, {
          method: "POST",
          signal: controller.signal,
          headers: { "x-api-key": "k" },
          body: JSON.stringify({ model: "claude-test", max_tokens: 100_000, stream: true, messages: [] })
        })
        const reader = response.body!.getReader()
        let text = ""
        while (!text.includes("x".repeat(27_000))) text += new TextDecoder().decode((await reader.read()).value)
        controller.abort()
      })
      const { caps } = yield* until(figures(here.url), ({ caps }) => caps[0]!.held === 0)
      // $0.20 of prompt, and about 10,000 tokens of output.
      assert.isBelow(Math.abs(caps[0]!.spent - 0.3), 0.001)
    })
  )

  it.live("refuses a model without a price only under a cap, and says so", () =>
    Effect.gen(function* () {
      const here = yield* world(gives(10), { rules: [{ agent: "capped", cap: { dollars: 1 } }] })
      const refused = yield* ask(here.url, agent("capped"), { model: "unheard-of" })
      assert.deepStrictEqual([refused.status, refused.retry], [402, "false"])
      assert.match(refused.text, /\\"unheard-of\\" has no price/)
      assert.strictEqual((yield* ask(here.url, agent("free"), { model: "unheard-of" })).status, 200)
      const { agents } = yield* figures(here.url)
      assert.deepInclude(
        agents.find(({ name }) => name === "free"),
        { dollars: 0, unpriced: 1 }
      )
    })
  )

  it.live("continues from the stored amounts after a restart", () =>
    Effect.gen(function* () {
      const rules = [{ capPerAgent: { dollars: 1.5, per: "day" as const } }]
      const first = yield* world(gives(100_000), { rules })
      assert.strictEqual((yield* ask(first.url, agent("a"))).status, 200)
      const spent = JSON.parse(JSON.stringify(yield* first.gateway.spent))
      const second = yield* world(gives(100_000), { rules, spent })
      assert.strictEqual((yield* ask(second.url, agent("a"))).status, 402)
      assert.strictEqual((yield* ask(second.url, agent("b"))).status, 200)
      assert.deepStrictEqual(Object.keys(yield* second.gateway.spent).length, 2)
    })
  )

  it.live("keeps two caps of the same callers, each for its own period", () =>
    Effect.gen(function* () {
      const rules = [{ cap: { dollars: 1.5, per: "5 hours" as const } }, { cap: { dollars: 10, per: "day" as const } }]
      const here = yield* world(gives(100_000), { rules })
      assert.strictEqual((yield* ask(here.url)).status, 200)
      assert.match((yield* ask(here.url)).text, /the cap of \$1\.50 in 5h for all callers/)
      const { caps } = yield* figures(here.url)
      assert.deepStrictEqual(
        caps.map(({ dollars }) => dollars),
        [1.5, 10]
      )
    })
  )

  it.live("refuses invalid caps and weights before it listens, and at a reload", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(world(gives(1), { rules: [{ capPerKey: { dollars: -1 } }] }))
      assert.match(String(exit), /rules\[0\]\.capPerKey\.dollars: expected a number > 0/)
      const here = yield* world(gives(1), {})
      for (const rule of [{ weight: 0 }, { weight: -1 }, { weight: 1e6 }, { priority: Infinity }]) {
        const rules = [rule]
        const given = Object.keys(rule)[0]!
        assert.include(String(yield* Effect.exit(world(gives(1), { rules }))), `${given}: expected`)
        assert.include(String(yield* Effect.exit(here.gateway.reload({ rules }))), `${given}: expected`)
      }
      assert.strictEqual((yield* ask(here.url)).status, 200)
    })
  )

  it.live("lists who waits for money, and shows a cap that is spent in the log, the metrics and the status", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const answered = Promise.withResolvers<void>()
      const holds: Handler = (request, response, body) => {
        void answered.promise.then(() => gives(50_000)(request, response, body))
      }
      const here = yield* Effect.provide(
        world(holds, { rules: [{ cap: { dollars: 1.4 } }], silence: "20 millis" }),
        Logger.layer([Logger.make(({ message }) => void lines.push(String(message)))])
      )
      const cap = Effect.map(figures(here.url), ({ caps }) => caps[0])
      const metrics = Effect.promise(async () => (await fetch(`${here.url}/metrics`)).text())
      const metric = (name: string) =>
        Effect.map(metrics, (text) => new RegExp(`cap_${name}\\{[^}]*\\} (\\d)`).exec(text)?.[1])
      const first = yield* Effect.forkChild(ask(here.url, agent("a")))
      yield* until(cap, (cap) => (cap?.held ?? 0) > 0)
      const second = yield* Effect.forkChild(ask(here.url, agent("b")))
      const waits = yield* until(cap, (cap) => cap?.queued === 1)
      assert.deepStrictEqual(
        waits?.waiting.map(({ agent, dollars }) => [agent, dollars.toFixed(1)]),
        [["b", "1.0"]]
      )
      assert.strictEqual(yield* metric("waiting"), "1")
      assert.strictEqual(yield* metric("reached"), "0")
      assert.isFalse(waits!.isReached)
      answered.resolve()
      assert.strictEqual((yield* Fiber.join(first)).status, 200)
      // Ninety cents are left, and the second call may cost a dollar.
      const { status, text } = yield* Fiber.join(second)
      assert.strictEqual(status, 402)
      assert.include(text, "of the cap of $1.40 for all callers ($0.50 spent, $0.00 reserved by running calls)")
      const reached = yield* cap
      assert.deepStrictEqual([reached?.isReached, reached?.queued, reached?.waiting], [true, 0, []])
      assert.deepStrictEqual([yield* metric("waiting"), yield* metric("reached")], ["0", "1"])
      assert.deepStrictEqual(lines, [
        "The cap of $1.40 for all callers is reached: $0.50 spent, so calls that may cost more than the $0.90 left are refused"
      ])
    })
  )

  it.live(
    "answers 402 to a call that has waited too long for reserved money, without a client in between that gave up",
    () =>
      Effect.gen(function* () {
        const here = yield* world(() => {}, {
          rules: [{ cap: { dollars: 1.4 } }],
          silence: "20 millis",
          maxHold: "300 millis"
        })
        yield* Effect.forkChild(ask(here.url))
        yield* until(figures(here.url), ({ caps }) => (caps[0]?.held ?? 0) > 0)
        const { retry, status, text } = yield* ask(here.url)
        assert.deepStrictEqual([status, retry], [402, "false"])
        assert.match(text, /running calls have reserved too much of the cap of \$1\.40 for all callers/)
      })
  )

  // Regression: a response that began before its call had asked for money broke off, and the client called again.
  it.live("answers 402 to a call that was counted for longer than a response may be silent", () =>
    Effect.gen(function* () {
      const slow = Layer.effect(
        Estimator.Estimator,
        Effect.map(Estimator.make(), (estimator) => ({
          ...estimator,
          estimate: (call: Estimator.Call) => Effect.delay(estimator.estimate(call), "200 millis")
        }))
      )
      const governor = Layer.effect(Governor.Governor, Governor.make({ prices })).pipe(Layer.provide(slow))
      const here = yield* world(() => {}, { rules: [{ cap: { dollars: 0.5 } }], silence: "20 millis" }, governor)
      const { retry, status } = yield* ask(here.url)
      assert.deepStrictEqual([status, retry], [402, "false"])
    })
  )
})
