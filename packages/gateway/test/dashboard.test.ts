import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { serve } from "../../../test/support/httpServer.ts"

interface Panel {
  readonly title: string
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
  readonly targets: ReadonlyArray<{ readonly expr: string }>
}

const dashboard = JSON.parse(readFileSync(join(import.meta.dirname, "../../../docs/gateway/grafana.json"), "utf8")) as {
  readonly panels: ReadonlyArray<Panel>
}

/** Metrics that exist only after their first event. */
const rejected = '{"type":"error","error":{"type":"rate_limit_error","message":"Too fast"}}'
const answer = JSON.stringify({
  id: "msg_1",
  type: "message",
  model: "claude-sonnet-5",
  content: [{ type: "text", text: "Hello" }],
  usage: { input_tokens: 9, output_tokens: 9 }
})

/** The metrics that a gateway has after a call that was rejected once, and their labels. */
const metrics = Effect.gen(function* () {
  let calls = 0
  const upstream = yield* serve((_, response) => {
    calls++
    if (calls === 1) response.writeHead(429, { "content-type": "application/json", "retry-after": "1" }).end(rejected)
    else response.writeHead(200, { "content-type": "application/json" }).end(answer)
  })
  const live = Gateway.layer({
    upstreams: { anthropic: upstream.url },
    rules: [{ cap: { dollars: 9 } }],
    silence: "200 millis"
  }).pipe(Layer.provide(Governor.layer()), Layer.provide(Budget.layer()))
  const { url } = Context.get(yield* Layer.build(live), Gateway.Gateway)
  const text = yield* Effect.promise(async () => {
    const body = JSON.stringify({ model: "claude-sonnet-5", max_tokens: 9, messages: [] })
    await (await fetch(`${url}/v1/messages`, { method: "POST", body })).text()
    return (await fetch(`${url}/metrics`)).text()
  })
  const found = new Map<string, Set<string>>()
  for (const [, name = "", labels = ""] of text.matchAll(/^(floodgate_\w+)(?:\{(.*)\})? /gm)) {
    const known = found.get(name) ?? new Set(["instance"])
    for (const [, label = ""] of labels.matchAll(/(\w+)="/g)) known.add(label)
    found.set(name, known)
  }
  return found
})

describe("the dashboard for Grafana", () => {
  it.live("uses only metrics and labels that a gateway has", () =>
    Effect.gen(function* () {
      const found = yield* metrics
      const asked = dashboard.panels.flatMap(({ targets, title }) => targets.map(({ expr }) => ({ expr, title })))
      assert.isAbove(asked.length, 12)
      for (const { expr, title } of asked) {
        const names = expr.match(/floodgate_\w+/g) ?? []
        assert.isAbove(names.length, 0, title)
        const labels = [
          ...[...expr.matchAll(/by \(([^)]*)\)/g)].flatMap(([, list = ""]) => list.split(/,\s*/)),
          ...[...expr.matchAll(/(\w+)=~?"/g)].map(([, label = ""]) => label)
        ]
        for (const name of names) {
          assert.isTrue(found.has(name), `${title}: ${name}, of ${[...found.keys()].join(", ")}`)
          for (const label of labels) assert.isTrue(found.get(name)!.has(label), `${title}: ${name} has no ${label}`)
        }
      }
    })
  )

  it("lays its panels beside one another", () => {
    for (const [index, { gridPos: one, title }] of dashboard.panels.entries()) {
      assert.isAtMost(one.x + one.w, 24, title)
      for (const { gridPos: other } of dashboard.panels.slice(index + 1)) {
        const isApart =
          one.x + one.w <= other.x ||
          other.x + other.w <= one.x ||
          one.y + one.h <= other.y ||
          other.y + other.h <= one.y
        assert.isTrue(isApart, title)
      }
    }
  })
})
