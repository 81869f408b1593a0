/** Headers of windows in formats that nobody has seen yet, in any order: what was known of an account stays as it is. */
import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import * as Signals from "floodgate/Signals"
import { windowsWith } from "../support/paying.ts"

const reset = "1999999999"

/** What a provider says today. */
const known = [
  ["anthropic-ratelimit-unified-status", "allowed"],
  ["anthropic-ratelimit-unified-representative-claim", "five_hour"],
  ["anthropic-ratelimit-unified-5h-utilization", "0.3"],
  ["anthropic-ratelimit-unified-5h-reset", reset],
  ["anthropic-ratelimit-unified-7d_sonnet-utilization", "0.2"],
  ["anthropic-ratelimit-unified-7d_sonnet-reset", reset],
  ["x-codex-primary-used-percent", "40"],
  ["x-codex-primary-window-minutes", "43200"],
  ["x-codex-primary-reset-at", reset]
] as const

const labels = [
  "overage",
  "grace",
  "weekly",
  "month",
  "h5",
  "5",
  "5x",
  "05h",
  "0d",
  "5h-extra",
  "7d-sonnet",
  "5h5h",
  "-",
  "_",
  "5H!",
  "__proto__",
  "constructor",
  "toString",
  "tertiary",
  "100000d",
  `7d_${"a".repeat(40)}`
] as const
const prefixes = ["anthropic-ratelimit-unified-", "x-codex-new-", "x-windows-"] as const
const fields = ["utilization", "status", "reset", "tokens-left", "used-percent", "window-minutes", "reset-at"]
const value = Schema.Union([
  Schema.String,
  Schema.Literals([
    "0",
    "1",
    "1.0",
    "99",
    "-1",
    "1e300",
    "NaN",
    "rejected",
    "allowed",
    reset,
    "2026-13-45",
    "{}",
    "five_hour"
  ])
])
const odd = Schema.Tuple([
  Schema.Literals(prefixes),
  Schema.Literals(labels),
  Schema.Array(value).check(Schema.isMinLength(1))
])
const places = Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1_000 }))).check(
  Schema.isMinLength(known.length)
)

/** What is known of an account that got a response with these headers. */
const told = (headers: ReadonlyArray<readonly [string, string]>) => {
  const { ask, windows } = windowsWith(0.9)
  const signal = Signals.fromHeaders(Object.fromEntries(headers))
  windows.observe(undefined, signal ?? { dimensions: {} }, undefined, "claude-sonnet-5")
  const calls = [1, 1].map((dollars) => ask(dollars, "a", undefined, "claude-sonnet-5").phase)
  const { status } = windows
  return { calls, status: [...status].sort((one, other) => (one.name < other.name ? -1 : 1)) }
}

describe("headers of windows in unknown formats", () => {
  it("are read as what they are where their format is known", () => {
    const { status } = told(known)
    assert.deepStrictEqual(
      status.map(({ models, name, used }) => [name, used, models]),
      [
        ["30d", 0.4, undefined],
        ["5h", 0.3, undefined],
        ["7d_sonnet", 0.2, ["sonnet"]]
      ]
    )
  })

  it.each(labels)("tell nothing of %s, however plausible the values are", (label) => {
    for (const prefix of prefixes) {
      const more = fields.map((field) => {
        const values: Readonly<Record<string, string>> = {
          reset,
          "reset-at": reset,
          status: "rejected",
          "window-minutes": "300"
        }
        return [`${prefix}${label}-${field}`, values[field] ?? "1"] as const
      })
      assert.deepStrictEqual(told([...more, ...known]), told(known), prefix)
    }
  })

  it.prop(
    "throw nothing and change nothing, whatever they say and wherever they stand",
    { extra: Schema.Array(odd), places },
    ({ extra, places }) => {
      const more = extra.flatMap(([prefix, label, values]) =>
        fields.map((field, n) => [`${prefix}${label}-${field}`, values[n % values.length]!] as const)
      )
      const headers = [...known, ...more]
      const shuffled = headers
        .map((header, n) => ({ header, place: places[n % places.length]! }))
        .sort((one, other) => one.place - other.place)
        .map(({ header }) => header)
      assert.deepStrictEqual(told(shuffled), told(known))
      // Without anything that is known they tell nothing.
      assert.deepStrictEqual(told(more).status, [])
    },
    { arbitrary: { runs: 100 } }
  )
})
