import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import type * as Events from "floodgate/Events"
import type { Rule } from "@floodgate/gateway"
import { makeActivity, makeJournal } from "../src/activity.ts"
import { makeCallers } from "../src/callers.ts"
import { CallerPurses } from "../src/purses.ts"

const request = (agent: string | undefined, headers: Record<string, string> = {}, session = agent) => ({
  url: "https://api.test/v1/messages",
  protocol: "anthropic-messages",
  model: "claude-sonnet-5",
  agent,
  session,
  header: (name: string) => headers[name],
  body: {}
})

const told = (rules: ReadonlyArray<Rule>, ...args: Parameters<typeof request>) => {
  const { agent, priority, weight } = makeCallers(
    rules,
    new CallerPurses({}, Context.empty(), Scope.makeUnsafe()),
    () => {}
  )(request(...args))
  return { agent, priority, weight }
}

describe("callers of the gateway", () => {
  it("names a caller without an agent by a hash of its key", () => {
    const { agent } = told([], undefined, { "x-api-key": "sk-secret-1234" })
    assert.match(agent, /^key-[\da-f]{8}$/)
    // The same key is the same caller, however it is sent.
    assert.strictEqual(told([], undefined, { authorization: "Bearer sk-secret-1234" }).agent, agent)
    assert.notStrictEqual(told([], undefined, { "x-api-key": "sk-secret-1235" }).agent, agent)
    assert.strictEqual(told([], "a7", { "x-api-key": "sk-secret-1234" }).agent, "a7")
  })

  it("puts interactive calls before others, and batches after them", () => {
    assert.strictEqual(told([], "a", { "x-claude-code-request-class": "main" }).priority, 1)
    assert.strictEqual(told([], "a", { "x-floodgate-class": "batch" }).priority, -1)
    assert.strictEqual(told([], "a", { "x-floodgate-class": "constructor" }).priority, 0)
    assert.strictEqual(told([], "a").priority, 0)
  })

  it("takes each setting from the first matching rule that has it", () => {
    const rules: ReadonlyArray<Rule> = [
      { agent: "nightly-*", priority: -5 },
      { headers: { "X-Team": "search" }, weight: 3 },
      { key: "*x9Yz", weight: 2, priority: 7 }
    ]
    const key = { "x-api-key": "sk-ant-x9Yz" }
    assert.deepStrictEqual(told(rules, "nightly-7", key), { agent: "nightly-7", priority: -5, weight: 2 })
    assert.deepStrictEqual(told(rules, "b", { ...key, "x-team": "search" }), { agent: "b", priority: 7, weight: 3 })
    const ofSession: ReadonlyArray<Rule> = [{ agent: "s-1", weight: 2 }]
    assert.deepStrictEqual(told(ofSession, "s-1/a1", {}, "s-1"), { agent: "s-1/a1", priority: 0, weight: 2 })
    assert.isUndefined(told(ofSession, "s-1/a1").weight)
    assert.deepStrictEqual(told(rules, "b"), { agent: "b", priority: 0, weight: undefined })
    // A pattern is not a regular expression.
    assert.strictEqual(told([{ agent: "a.c", priority: 9 }], "abc").priority, 0)
  })
})

const minute = 60_000

describe("the keys of a gateway", () => {
  it.effect("are listed by what they cost, then by what they sent", () =>
    Effect.gen(function* () {
      const activity = yield* makeActivity(Context.make(Metric.MetricRegistry, new Map()), () => 0)
      const bill = (key: string, inputTokens: number, dollars: number | undefined) =>
        activity.billed(
          { agent: "a", key, rule: "r" },
          { model: "m", dollars, actual: { inputTokens, outputTokens: 1 } }
        )
      // Calls to a model without a price cost nothing that is known.
      bill("small", 10, undefined)
      bill("cheap", 5_000, 0.1)
      bill("large", 900, undefined)
      bill("dear", 1, 2)
      bill("middle", 100, undefined)
      const names = activity.keysByCost(4).map(({ name }) => name)
      assert.deepStrictEqual(names, ["dear", "cheap", "large", "middle"])
    })
  )
})

describe("the journal of a gateway", () => {
  it("counts the rejections and the waits of each minute, and lists all events but waits", () => {
    const journal = makeJournal()
    const add = (type: "rejection" | "wait", at: number) => journal.add({ type, at } as Events.Event)
    for (const at of [1, 2, minute - 1]) add("rejection", at)
    for (const at of [5, minute, minute + 1]) add("wait", at)
    add("rejection", minute + 2)
    assert.deepStrictEqual(
      journal.minutes.map(({ rejected, waited }) => ({ rejected, waited })),
      [
        { rejected: 3, waited: 1 },
        { rejected: 1, waited: 2 }
      ]
    )
    assert.deepStrictEqual(
      journal.events.map(({ type }) => type),
      ["rejection", "rejection", "rejection", "rejection"]
    )
  })
})
