/** The long windows of a subscription behind a gateway, over real HTTP. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { ProviderServer } from "floodgate/testing/server"

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
})
