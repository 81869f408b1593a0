import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { parse } from "yaml"
import { message } from "../../../test/support/httpProvider.ts"
import { serve } from "../../../test/support/httpServer.ts"

interface Panel {
  readonly title: string
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
  readonly targets: ReadonlyArray<{ readonly expr: string }>
}

interface AlertFile {
  readonly groups: ReadonlyArray<{ readonly rules: ReadonlyArray<{ readonly alert: string; readonly expr: string }> }>
}

const folder = join(import.meta.dirname, "../../../docs/gateway")
const hasPromtool = spawnSync("promtool", ["--version"]).status === 0

const dashboard = JSON.parse(readFileSync(join(folder, "grafana.json"), "utf8")) as {
  readonly panels: ReadonlyArray<Panel>
}

/** Metrics that exist only after their first event. */
const rejected = '{"type":"error","error":{"type":"rate_limit_error","message":"Too fast"}}'
const answer = JSON.stringify(message(9, 9, "claude-sonnet-5"))

const sha256 = createHash("sha256").update("fg-key").digest("hex")

/** The metrics that a gateway has after a call that was rejected once, and one without a key, and their labels. */
const metrics = Effect.gen(function* () {
  let calls = 0
  const upstream = yield* serve((_, response) => {
    calls++
    if (calls === 1) response.writeHead(429, { "content-type": "application/json", "retry-after": "1" }).end(rejected)
    else response.writeHead(200, { "content-type": "application/json" }).end(answer)
  })
  const live = Gateway.layer({
    upstreams: { anthropic: upstream.url },
    keys: [{ name: "search", sha256 }],
    credentials: { anthropic: Redacted.make("sk-provider") },
    rules: [{ name: "search", cap: { dollars: 9 } }],
    silence: "200 millis"
  }).pipe(Layer.provide(Governor.layer()), Layer.provide(Budget.layer()))
  const { url } = Context.get(yield* Layer.build(live), Gateway.Gateway)
  const text = yield* Effect.promise(async () => {
    const body = JSON.stringify({ model: "claude-sonnet-5", max_tokens: 9, messages: [] })
    await (await fetch(`${url}/v1/messages`, { method: "POST", body })).text()
    await (await fetch(`${url}/v1/messages`, { method: "POST", body, headers: { "x-api-key": "fg-key" } })).text()
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

/** What is wrong with the metrics and labels in expressions. */
const problemsOf = (
  asked: ReadonlyArray<{ readonly expr: string; readonly title: string }>,
  found: ReadonlyMap<string, ReadonlySet<string>>
): ReadonlyArray<string> =>
  asked.flatMap(({ expr, title }) => {
    const names = expr.match(/floodgate_\w+/g) ?? []
    const labels = [
      ...[...expr.matchAll(/by \(([^)]*)\)/g)].flatMap(([, list = ""]) => list.split(/,\s*/)),
      ...[...expr.matchAll(/(\w+)=~?"/g)].map(([, label = ""]) => label)
    ]
    return names.flatMap((name) => {
      const known = found.get(name)
      if (known === undefined) return [`${title}: ${name}, of ${[...found.keys()].join(", ")}`]
      return labels.filter((label) => !known.has(label)).map((label) => `${title}: ${name} has no ${label}`)
    })
  })

describe("the dashboard for Grafana", () => {
  it.live("uses only metrics and labels that a gateway has", () =>
    Effect.gen(function* () {
      const asked = dashboard.panels.flatMap(({ targets, title }) => targets.map(({ expr }) => ({ expr, title })))
      assert.isAbove(asked.length, 18)
      assert.isTrue(asked.every(({ expr }) => expr.includes("floodgate_")))
      assert.deepStrictEqual(problemsOf(asked, yield* metrics), [])
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

describe("the alert rules for Prometheus", () => {
  const rules = (parse(readFileSync(join(folder, "alerts.yml"), "utf8")) as AlertFile).groups.flatMap(
    ({ rules }) => rules
  )

  it.live("use only metrics and labels that a gateway has", () =>
    Effect.gen(function* () {
      const found = new Map(yield* metrics)
      // Only a gateway whose store is away has it.
      found.set("floodgate_budget_store_failures", new Set(["instance", "pool"]))
      const asked = rules
        .filter(({ alert }) => alert !== "FloodgateDown")
        .map(({ alert, expr }) => ({ title: alert, expr }))
      assert.isAbove(asked.length, 4)
      assert.deepStrictEqual(problemsOf(asked, found), [])
    })
  )

  it.skipIf(!hasPromtool)("hold in Prometheus' own tests, each of which an alert has", () => {
    const tested = parse(readFileSync(join(folder, "alerts.test.yml"), "utf8")) as {
      readonly tests: ReadonlyArray<{ readonly alert_rule_test: ReadonlyArray<{ readonly alertname: string }> }>
    }
    assert.sameMembers(
      rules.map(({ alert }) => alert),
      tested.tests.flatMap((test) => test.alert_rule_test.map(({ alertname }) => alertname))
    )
    for (const args of [
      ["check", "rules", "alerts.yml"],
      ["test", "rules", "alerts.test.yml"]
    ]) {
      const { status, stderr, stdout } = spawnSync("promtool", args, { cwd: folder, encoding: "utf8" })
      assert.strictEqual(status, 0, stdout + stderr)
    }
  })
})
