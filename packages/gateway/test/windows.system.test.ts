/** The long windows of a subscription behind a gateway, over real HTTP. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { message } from "../../../test/support/httpProvider.ts"
import { type Handler, serve } from "../../../test/support/httpServer.ts"
import { ProviderServer } from "floodgate/testing/server"

const ask = (url: string, kind?: string, more: Readonly<Record<string, string>> = {}) =>
  Effect.promise(async () => {
    const response = await fetch(`${url}/v1/messages`, {
      method: "POST",
      headers: {
        authorization: "Bearer sk-ant-oat-test",
        "anthropic-version": "2023-06-01",
        ...(kind === undefined ? {} : { "x-claude-code-request-class": kind }),
        ...more
      },
      body: JSON.stringify({
        model: "claude-sonnet-5-5",
        max_tokens: 100,
        messages: [{ role: "user", content: "Hello" }]
      })
    })
    const { headers, status } = response
    const offer = headers.get("anthropic-ratelimit-unified-slow-offer")
    return { status, offer, retry: headers.get("x-should-retry"), text: await response.text() }
  })

describe("a gateway in front of a subscription", () => {
  it.live("gives a ticket to who asks for it, and makes its call once", () =>
    Effect.gen(function* () {
      let isOpen = false
      let opened = 200
      let sent = 0
      const resetsAt = Math.ceil(Date.now() / 1_000) + 2
      const headers = {
        "content-type": "application/json",
        "anthropic-ratelimit-unified-representative-claim": "five_hour",
        "anthropic-ratelimit-unified-5h-reset": String(resetsAt)
      }
      const handler: Handler = (_, response) => {
        sent++
        const status = isOpen ? "allowed" : "rejected"
        response.writeHead(isOpen ? opened : 429, {
          ...headers,
          "anthropic-ratelimit-unified-status": status,
          "anthropic-ratelimit-unified-5h-utilization": isOpen ? "0.1" : "1"
        })
        response.end(
          JSON.stringify(
            isOpen && opened === 200 ? message : { type: "error", error: { type: "rate_limit_error", message: "" } }
          )
        )
      }
      const upstream = yield* serve(handler)
      const context = yield* Layer.build(Governor.layer().pipe(Layer.provideMerge(Budget.layer())))
      const { url } = yield* Gateway.make({
        upstreams: { anthropic: upstream.url },
        drain: "20 millis",
        maxHold: "1 second",
        adminToken: "an-admin-token-of-this-test"
      }).pipe(Effect.provideContext(context))
      const send = (more: Readonly<Record<string, string>>) =>
        Effect.promise(async () => {
          const response = await fetch(`${url}/v1/messages`, {
            method: "POST",
            headers: { authorization: "Bearer sk-ant-oat-test", "anthropic-version": "2023-06-01", ...more },
            body: JSON.stringify({
              model: "claude-sonnet-5",
              max_tokens: 100,
              messages: [{ role: "user", content: "Hi" }]
            })
          })
          const text = await response.text()
          const { headers, status } = response
          return { status, ticket: headers.get("x-floodgate-ticket")!, at: headers.get("x-floodgate-ticket-at")!, text }
        })
      const first = yield* send({ "x-floodgate-park": "1" })
      assert.strictEqual(first.status, 402, first.text)
      const second = yield* send({ "x-floodgate-park": "1" })
      assert.strictEqual(second.status, 402)
      const third = yield* send({ "x-floodgate-park": "1" })
      assert.strictEqual(sent, 1)
      assert.strictEqual(Date.parse(first.at), 1_000 * resetsAt)
      const early = yield* send({ "x-floodgate-ticket": first.ticket })
      assert.deepStrictEqual([early.status, early.ticket, early.at], [402, first.ticket, first.at])
      const stolen = yield* send({ "x-floodgate-ticket": first.ticket, authorization: "Bearer sk-ant-oat-other" })
      assert.strictEqual(stolen.status, 400)
      const listed = Effect.promise(async () => {
        const shown = (await (await fetch(`${url}/floodgate/tickets`)).json()) as { tickets: ReadonlyArray<unknown> }
        return shown.tickets
      })
      assert.lengthOf(yield* listed, 3)
      const cancelled = yield* Effect.promise(() =>
        fetch(`${url}/floodgate/tickets`, {
          method: "POST",
          headers: { "x-floodgate-admin": "an-admin-token-of-this-test" },
          body: JSON.stringify({ cancel: second.ticket })
        })
      )
      assert.strictEqual(cancelled.status, 200)
      isOpen = true
      yield* Effect.sleep(Math.max(0, 1_000 * resetsAt - Date.now()) + 800)
      const both = yield* Effect.all(
        Array.from({ length: 2 }, () => send({ "x-floodgate-ticket": first.ticket })),
        { concurrency: 2 }
      )
      assert.deepStrictEqual(both.map(({ status }) => status).toSorted(), [200, 400])
      assert.strictEqual((yield* send({ "x-floodgate-ticket": second.ticket })).status, 400)
      assert.strictEqual(sent, 2)
      opened = 402
      assert.strictEqual((yield* send({ "x-floodgate-ticket": third.ticket })).status, 402)
      assert.strictEqual(sent, 3)
      assert.lengthOf(yield* listed, 1, "a refusal by the provider is no unknown outcome")
    }).pipe(Effect.scoped)
  )

  it.live("keeps background calls to their share, lets interactive ones pass, and shows both", () =>
    Effect.gen(function* () {
      // Each call costs a fifth of the first window.
      const upstream = yield* ProviderServer.make({
        windows: { "5h": { dollars: 0.005, used: 0.31 }, "7d": { dollars: 10, used: 0.25 } },
        outputTokens: 100,
        latency: { baseMillis: 0, perInputTokenMillis: 0, perOutputTokenMillis: 0 }
      })
      const context = yield* Layer.build(
        Governor.layer({ windows: { "5h": { share: 0.7 } } }).pipe(
          Layer.provideMerge(Budget.layer()),
          Layer.provideMerge(Layer.succeed(Metric.MetricRegistry, new Map()))
        )
      )
      const { url } = yield* Gateway.make({ upstreams: { anthropic: upstream.url }, drain: "20 millis" }).pipe(
        Effect.provideContext(context)
      )
      assert.strictEqual((yield* ask(url, "background")).status, 200)
      assert.strictEqual((yield* ask(url, "background")).status, 200)
      const refused = yield* ask(url, "background")
      assert.deepStrictEqual([refused.status, refused.retry], [402, "false"])
      assert.match(refused.text, /\d+ % of the account's window of 5h are used, and this call may use up to 70 %/)
      assert.strictEqual((yield* ask(url)).status, 402, "a call of no class is not interactive")
      assert.strictEqual((yield* ask(url, "main")).status, 200)
      const { estimates, pools, windows } = yield* Effect.promise(async () => {
        const response = await fetch(`${url}/floodgate/status`)
        type Rows = ReadonlyArray<Record<string, unknown>>
        return (await response.json()) as { estimates: Rows; pools: ReadonlyArray<{ known: Rows }>; windows: Rows }
      })
      assert.isAtLeast(estimates[0]!["bytesPerToken"] as number, 1)
      assert.strictEqual(estimates[0]!["answers"], 3)
      assert.deepStrictEqual(pools[0]!.known, [])
      const [five, seven] = windows as [Record<string, unknown>, Record<string, unknown>]
      assert.deepInclude(five, { name: "5h", share: 0.7 })
      assert.include(refused.text, `wait until ${new Date(five["resetsAt"] as number).toISOString()}`)
      assert.isAtLeast(five["used"] as number, 0.9)
      assert.deepInclude(seven, { name: "7d", used: 0.25 })
      const { windows: counted, requests } = yield* upstream.stats
      assert.strictEqual(requests, 3)
      const ends = (five["resetsAt"] as number) - Date.now()
      assert.isTrue(ends > 4.9 * 3_600_000 && ends <= 5 * 3_600_000 + 1_000)
      assert.closeTo(counted["5h"]!.used, 0.91, 0.02)
    }).pipe(Effect.scoped)
  )

  /** A provider whose window of 5 hours is used up. It offers a slower lane, and answers the calls that take it. */
  const usedUp = (seen: Array<string>): Handler => {
    const resets = String(Math.floor(Date.now() / 1_000) + 3_600)
    const unified = "anthropic-ratelimit-unified"
    return (request, response) => {
      const isSlow = request.headers["anthropic-usage-limit"] === "slow"
      seen.push(isSlow ? "slow" : "usual")
      const headers = {
        "content-type": "application/json",
        [`${unified}-5h-utilization`]: "1",
        [`${unified}-5h-reset`]: resets,
        [`${unified}-status`]: isSlow ? "allowed" : "rejected",
        [`${unified}-representative-claim`]: "five_hour"
      }
      if (isSlow) return void response.writeHead(200, headers).end(JSON.stringify(message(25, 12, "claude-sonnet-5-5")))
      const offer = { [`${unified}-slow-offer`]: "available", "retry-after": "20" }
      const body = { type: "error", error: { type: "rate_limit_error", message: "You have used up your limit" } }
      return void response.writeHead(429, { ...headers, ...offer }).end(JSON.stringify(body))
    }
  }

  for (const [what, windows, rules] of [
    ["without shares", undefined, []],
    ["with a share", { "5h": { share: 0.7 } }, []],
    ["with a cap in dollars", undefined, [{ cap: { dollars: 10 } }]]
  ] as const) {
    it.live(`passes on each offer of the slower lane at once, and each call that takes it: ${what}`, () =>
      Effect.gen(function* () {
        const seen: Array<string> = []
        const upstream = yield* serve(usedUp(seen))
        const context = yield* Layer.build(
          Governor.layer({ windows }).pipe(
            Layer.provideMerge(Budget.layer()),
            Layer.provideMerge(Layer.succeed(Metric.MetricRegistry, new Map()))
          )
        )
        const { url } = yield* Gateway.make({ upstreams: { anthropic: upstream.url }, rules, drain: "20 millis" }).pipe(
          Effect.provideContext(context)
        )
        const slow = { "anthropic-usage-limit": "slow" }
        for (let client = 0; client < 3; client++) {
          const offered = yield* ask(url, "main")
          assert.deepStrictEqual([offered.status, offered.offer], [429, "available"])
          assert.include(offered.text, "You have used up your limit")
          assert.strictEqual((yield* ask(url, "main", slow)).status, 200)
          assert.strictEqual((yield* ask(url, "background", slow)).status, 200)
        }
        assert.deepStrictEqual(seen, Array.from({ length: 3 }, () => ["usual", "slow", "slow"]).flat())
      }).pipe(Effect.scoped)
    )
  }

  it.live("keeps Codex to a share of its window, whatever its slot", () =>
    Effect.gen(function* () {
      const upstream = yield* serve((_, response) => {
        const answer = {
          id: "r",
          object: "response",
          status: "completed",
          model: "gpt-6",
          output: [],
          usage: { input_tokens: 9, output_tokens: 9 }
        }
        response
          .writeHead(200, {
            "content-type": "application/json",
            "x-codex-primary-used-percent": "61",
            "x-codex-primary-window-minutes": "10080",
            "x-codex-primary-reset-at": String(Math.floor(Date.now() / 1_000) + 86_400)
          })
          .end(JSON.stringify(answer))
      })
      const context = yield* Layer.build(
        Governor.layer({ windows: { "7d": { share: 0.6 } } }).pipe(
          Layer.provideMerge(Budget.layer()),
          Layer.provideMerge(Layer.succeed(Metric.MetricRegistry, new Map()))
        )
      )
      const { url } = yield* Gateway.make({ upstreams: { openai: upstream.url }, drain: "20 millis" }).pipe(
        Effect.provideContext(context)
      )
      const responses = Effect.promise(async () => {
        const body = JSON.stringify({ model: "gpt-6", input: "Hello" })
        const headers = { authorization: "Bearer codex", "content-type": "application/json" }
        const response = await fetch(`${url}/v1/responses`, { method: "POST", headers, body })
        return { status: response.status, text: await response.text() }
      })
      assert.strictEqual((yield* responses).status, 200)
      const refused = yield* responses
      assert.strictEqual(refused.status, 400)
      assert.include(refused.text, "61 % of the account's window of 7d are used, and this call may use up to 60 %")
    }).pipe(Effect.scoped)
  )
})
