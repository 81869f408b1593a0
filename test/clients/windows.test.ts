/**
 * Coding agents on a subscription whose window is used up, through the gateway. A script takes the place of the provider.
 * `FLOODGATE_CLAUDE` and `FLOODGATE_CODEX` name the binaries of Claude Code and Codex; without one, nothing of it runs.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { serve } from "../support/httpServer.ts"
import { claudeCodeIn, codexIn, homeFor, maxMillis, run } from "./programs.ts"

const claude = process.env["FLOODGATE_CLAUDE"]
const codex = process.env["FLOODGATE_CODEX"]

interface Window {
  readonly name: string
  readonly used: number
  readonly isRejected: boolean
  readonly slowLane: { readonly calls: number }
}

/** A gateway of an account that keeps a tenth of its windows for people. */
const gatewayOf = Effect.fnUntraced(function* (upstreams: Gateway.Options["upstreams"]) {
  const windows = { "5h": { share: 0.9 }, "7d_sonnet": { share: 0.9 } }
  const live = yield* Layer.build(Layer.provideMerge(Governor.layer({ windows }), Budget.layer()))
  const { url } = yield* Effect.provide(Gateway.make({ upstreams, drain: "20 millis" }), live)
  const status = Effect.promise(async () => {
    const status = (await (await fetch(`${url}/floodgate/status`)).json()) as { windows: ReadonlyArray<Window> }
    return status.windows
  })
  return { url, windows: status }
})

describe.skipIf(codex === undefined)("Codex", () => {
  const answer = (id: number) => {
    const output = [
      {
        type: "message",
        id: `msg_${id}`,
        role: "assistant",
        status: "completed",
        content: [{ type: "output_text", text: "Reviewed.", annotations: [] }]
      }
    ]
    const usage = { input_tokens: 100, output_tokens: 5, total_tokens: 105 }
    return [
      { type: "response.created", response: { id: `resp_${id}`, status: "in_progress" } },
      { type: "response.output_item.done", output_index: 0, item: output[0] },
      { type: "response.completed", response: { id: `resp_${id}`, status: "completed", output, usage } }
    ]
  }

  /** An account whose window is used up for some seconds, and the calls that it got. */
  const spentFor = Effect.fnUntraced(function* (seconds: number) {
    const resetsAt = Math.ceil(Date.now() / 1_000) + seconds
    const calls: Array<"rejected" | "answered"> = []
    const { url } = yield* serve((request, response) => {
      if (request.method !== "POST") return void response.writeHead(404).end()
      const left = resetsAt - Date.now() / 1_000
      const headers = {
        "x-codex-plan-type": "plus",
        "x-codex-primary-used-percent": left > 0 ? "100" : "1",
        "x-codex-primary-window-minutes": "300",
        "x-codex-primary-reset-at": String(left > 0 ? resetsAt : resetsAt + 18_000)
      }
      calls.push(left > 0 ? "rejected" : "answered")
      if (left > 0) {
        const times = { resets_at: resetsAt, resets_in_seconds: Math.ceil(left) }
        const error = { type: "usage_limit_reached", message: "The usage limit has been reached", ...times }
        response.writeHead(429, { ...headers, "content-type": "application/json" })
        return void response.end(JSON.stringify({ error }))
      }
      response.writeHead(200, { ...headers, "content-type": "text/event-stream" })
      const events = answer(calls.length)
      return void response.end(
        events.map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join("")
      )
    })
    const { url: gateway, windows } = yield* gatewayOf({ openai: url })
    const home = yield* homeFor("codex")
    const env = codexIn(home, gateway)
    const ask = Effect.promise(() => run(codex!, ["exec", "--json", "--skip-git-repo-check", "Review."], home, env))
    return { ask, calls, windows }
  })

  it.live(
    "sends one call to a window that is spent for an hour",
    () =>
      Effect.gen(function* () {
        const { ask, calls, windows } = yield* spentFor(3_600)
        assert.include((yield* ask).out, "You’ve hit your usage limit. Try again at")
        assert.include((yield* ask).out, "The account's window of 5h is used up: wait until")
        assert.deepStrictEqual(calls, ["rejected"])
        const all = yield* windows
        assert.lengthOf(all, 1)
        assert.deepInclude(all[0], { name: "5h", isRejected: true })
      }),
    maxMillis
  )

  it.live(
    "goes on at the reset of a window that ends soon",
    () =>
      Effect.gen(function* () {
        const { ask, calls } = yield* spentFor(10)
        const { code, out } = yield* ask
        assert.strictEqual(code, 0, out)
        assert.include(out, "Reviewed.")
        assert.deepStrictEqual(calls, ["rejected", "answered"])
      }),
    maxMillis
  )
})

/** The events of an answer of Claude. */
const events = (model: string): string =>
  [
    {
      type: "message_start",
      message: {
        id: "msg_1",
        type: "message",
        role: "assistant",
        model,
        content: [],
        stop_reason: null,
        stop_sequence: null,
        usage: { input_tokens: 100, output_tokens: 1 }
      }
    },
    { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
    { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: `Answered by ${model}.` } },
    { type: "content_block_stop", index: 0 },
    { type: "message_delta", delta: { stop_reason: "end_turn", stop_sequence: null }, usage: { output_tokens: 5 } },
    { type: "message_stop" }
  ]
    .map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`)
    .join("")

const rejection = JSON.stringify({ type: "error", error: { type: "rate_limit_error", message: "Sonnet is used up" } })

/** A subscription whose week of Sonnet is used up. It offers the slower lane, and serves the calls that take it. */
const spentSonnet = Effect.gen(function* () {
  const calls: Array<string> = []
  const resetsAt = Math.ceil(Date.now() / 1_000) + 86_400
  const { url } = yield* serve((request, response, body) => {
    if (request.method !== "POST") return void response.writeHead(404).end()
    const { model } = JSON.parse(body) as { readonly model: string }
    const isSlow = request.headers["anthropic-usage-limit"] === "slow"
    const isSonnet = model.includes("sonnet")
    const isRejected = isSonnet && !isSlow
    calls.push(`${isSonnet ? "sonnet" : "haiku"} ${isSlow ? "slow" : "usual"} ${isRejected ? "rejected" : "answered"}`)
    const unified = "anthropic-ratelimit-unified"
    const headers = {
      [`${unified}-status`]: isRejected ? "rejected" : "allowed",
      [`${unified}-representative-claim`]: isSonnet ? "seven_day_sonnet" : "five_hour",
      [`${unified}-reset`]: String(resetsAt),
      [`${unified}-5h-utilization`]: "0.2",
      [`${unified}-5h-reset`]: String(resetsAt),
      ...(isSonnet && { [`${unified}-7d_sonnet-utilization`]: "1.0", [`${unified}-7d_sonnet-reset`]: String(resetsAt) })
    }
    if (!isRejected) {
      const status = isSlow ? { [`${unified}-slow-status`]: "active" } : {}
      response.writeHead(200, { ...headers, ...status, "content-type": "text/event-stream" })
      return void response.end(events(model))
    }
    const offer = { [`${unified}-slow-offer`]: "treatment", "x-should-retry": "false" }
    response.writeHead(429, { ...headers, ...offer, "content-type": "application/json" })
    return void response.end(rejection)
  })
  const { url: gateway, windows } = yield* gatewayOf({ anthropic: url })
  const home = yield* homeFor("claude")
  const ask = (model: string, headers?: string) =>
    Effect.promise(() =>
      run(claude!, ["-p", "Say hello.", "--model", model], home, {
        ...claudeCodeIn(home, gateway),
        ...(headers && { ANTHROPIC_CUSTOM_HEADERS: headers })
      })
    )
  return { ask, calls, windows }
})

describe.skipIf(claude === undefined)("Claude Code", () => {
  it.live(
    "gets the slower lane that it takes, and other models go on",
    () =>
      Effect.gen(function* () {
        const { ask, calls, windows } = yield* spentSonnet
        const refused = yield* ask("claude-sonnet-5")
        assert.notStrictEqual(refused.code, 0)
        assert.isTrue(calls.length > 0 && calls.every((call) => call === "sonnet usual rejected"), calls.join())
        // Its own dialog asks only who is logged in at the provider, so its setting for headers takes the lane.
        calls.length = 0
        const slow = yield* ask("claude-sonnet-5", "anthropic-usage-limit: slow")
        assert.deepInclude(slow, { code: 0, out: "Answered by claude-sonnet-5.\n" })
        const other = yield* ask("claude-haiku-4-5")
        assert.deepInclude(other, { code: 0, out: "Answered by claude-haiku-4-5.\n" })
        assert.sameMembers([...new Set(calls)], ["sonnet slow answered", "haiku usual answered"])
        const week = (yield* windows).find(({ name }) => name === "7d_sonnet")
        assert.deepInclude(week, { used: 1 })
        assert.isAtLeast(week!.slowLane.calls, 1)
      }),
    maxMillis
  )
})
