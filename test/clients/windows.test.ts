/**
 * Coding agents on a subscription whose window is used up, through the gateway. A script takes the place of the provider.
 * `FLOODGATE_CODEX` names the binary of Codex; without it, nothing runs.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { serve } from "../support/httpServer.ts"
import { codexIn, homeFor, maxMillis, run } from "./programs.ts"

const codex = process.env["FLOODGATE_CODEX"]

interface Window {
  readonly name: string
  readonly used: number
  readonly isRejected: boolean
  readonly slowLane: { readonly calls: number }
}

/** A gateway of an account that keeps a tenth of its window of 5 hours for people. */
const gatewayOf = Effect.fnUntraced(function* (upstreams: Gateway.Options["upstreams"]) {
  const live = yield* Layer.build(
    Layer.provideMerge(Governor.layer({ windows: { "5h": { share: 0.9 } } }), Budget.layer())
  )
  const { url } = yield* Effect.provide(Gateway.make({ upstreams, drain: "20 millis" }), live)
  const windows = Effect.promise(async () => {
    const status = (await (await fetch(`${url}/floodgate/status`)).json()) as { windows: ReadonlyArray<Window> }
    return status.windows
  })
  return { url, windows }
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
