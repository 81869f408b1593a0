/** The long windows of a subscription behind a gateway, over real HTTP. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { message } from "../../../test/support/httpProvider.ts"
import { serve } from "../../../test/support/httpServer.ts"

const resetsAt = Math.round(Date.now() / 1_000) + 7_200

/** A provider whose answers report these fractions of the window as used, one after the other. */
const provider = (fractions: ReadonlyArray<number>) => {
  let calls = 0
  return serve((_, response) => {
    const used = fractions[Math.min(calls++, fractions.length - 1)]!
    response
      .writeHead(200, {
        "content-type": "application/json",
        "anthropic-ratelimit-unified-status": used > 0.8 ? "allowed_warning" : "allowed",
        "anthropic-ratelimit-unified-5h-utilization": String(used),
        "anthropic-ratelimit-unified-5h-reset": String(resetsAt),
        "anthropic-ratelimit-unified-7d-utilization": "0.25",
        "anthropic-ratelimit-unified-7d-reset": String(resetsAt + 86_400)
      })
      .end(JSON.stringify(message(10, 100, "claude-sonnet-5-5")))
  })
}

const ask = (url: string, kind?: string) =>
  Effect.promise(async () => {
    const response = await fetch(`${url}/v1/messages`, {
      method: "POST",
      headers: {
        authorization: "Bearer sk-ant-oat-test",
        "anthropic-version": "2023-06-01",
        ...(kind === undefined ? {} : { "x-claude-code-request-class": kind })
      },
      body: JSON.stringify({
        model: "claude-sonnet-5-5",
        max_tokens: 100,
        messages: [{ role: "user", content: "Hello" }]
      })
    })
    return { status: response.status, retry: response.headers.get("x-should-retry"), text: await response.text() }
  })

describe("a gateway in front of a subscription", () => {
  it.live("keeps background calls to their share, lets interactive ones pass, and shows both", () =>
    Effect.gen(function* () {
      const upstream = yield* provider([0.5, 0.72, 0.9])
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
      const until = new Date(resetsAt * 1_000).toISOString()
      assert.match(refused.text, /\d+ % of the account's window of 5h are used, and this call may use 70 %/)
      assert.include(refused.text, `wait until ${until}`)
      assert.strictEqual((yield* ask(url)).status, 402, "a call of no class is not interactive")
      assert.strictEqual((yield* ask(url, "main")).status, 200)
      const { windows } = yield* Effect.promise(async () => {
        const response = await fetch(`${url}/floodgate/status`)
        return (await response.json()) as { windows: ReadonlyArray<Record<string, unknown>> }
      })
      const [five, seven] = windows as [Record<string, unknown>, Record<string, unknown>]
      assert.deepInclude(five, { name: "5h", share: 0.7, resetsAt: resetsAt * 1_000 })
      assert.isAtLeast(five["used"] as number, 0.9)
      assert.deepInclude(seven, { name: "7d", used: 0.25, resetsAt: (resetsAt + 86_400) * 1_000 })
      assert.strictEqual(upstream.requests.length, 3)
    }).pipe(Effect.scoped)
  )
})
