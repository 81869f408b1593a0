/** The long windows that headers tell. */
import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import * as Signals from "floodgate/Signals"

const at = 1_790_000_000
const resetsAt = at * 1_000
const unified = (fields: Readonly<Record<string, string>>) =>
  Signals.fromHeaders(
    Object.fromEntries(Object.entries(fields).map(([name, value]) => [`anthropic-ratelimit-unified-${name}`, value]))
  )?.windows
const codex = (fields: Readonly<Record<string, string>>) =>
  Signals.fromHeaders(Object.fromEntries(Object.entries(fields).map(([name, value]) => [`x-codex-${name}`, value])))
    ?.windows
const reset = String(at)

describe("Anthropic's windows", () => {
  it("are read by any name that says their length", () => {
    const windows = unified({
      status: "allowed",
      "5h-utilization": "0.16",
      "5h-reset": reset,
      "7d_sonnet-utilization": "0.04",
      "7d_sonnet-reset": "2026-09-21T13:33:20Z",
      "7d_oi-utilization": "0.98",
      "7d_oi-reset": reset,
      "2w-utilization": "0.5",
      "2w-reset": reset,
      "168h_new_thing-utilization": "0",
      "168h_new_thing-reset": reset
    })
    assert.deepStrictEqual(windows, {
      "5h": { used: 0.16, resetsAt },
      "7d_sonnet": { used: 0.04, resetsAt: Date.parse("2026-09-21T13:33:20Z"), models: ["sonnet"] },
      "7d_oi": { used: 0.98, resetsAt, models: [] },
      "14d": { used: 0.5, resetsAt },
      "7d_new_thing": { used: 0, resetsAt, models: [] }
    })
  })

  it("are read from `Headers`, too, and the usual ones from anything with `get`", () => {
    const fields = {
      "anthropic-ratelimit-unified-status": "allowed",
      "anthropic-ratelimit-unified-7d-utilization": "0.4",
      "anthropic-ratelimit-unified-7d-reset": reset
    }
    const expected = { "7d": { used: 0.4, resetsAt } }
    assert.deepStrictEqual(Signals.fromHeaders(new Headers(fields))?.windows, expected)
    assert.deepStrictEqual(Signals.fromHeaders(new Map(Object.entries(fields)) as never)?.windows, expected)
  })

  /** Two windows of all models and one of Fable, of which the provider rejects calls for some reason. */
  const rejected = (more: Readonly<Record<string, string>>) => {
    const windows = unified({
      status: "rejected",
      "5h-utilization": "0.5",
      "5h-reset": reset,
      "7d-utilization": "1",
      "7d-reset": reset,
      "7d_oi-utilization": "1.01",
      "7d_oi-reset": reset,
      ...more
    })
    return Object.entries(windows ?? {}).flatMap(([name, { isRejected }]) => (isRejected === true ? [name] : []))
  }

  it.each([
    ["its claim", { "representative-claim": "seven_day_overage_included" }, ["7d_oi"]],
    ["the claim of all models", { "representative-claim": "seven_day" }, ["7d"]],
    [
      "its own status",
      { "5h-status": "allowed", "7d-status": "allowed_warning", "7d_oi-status": "rejected" },
      ["7d_oi"]
    ],
    ["a claim against its status", { "representative-claim": "seven_day", "7d-status": "allowed" }, []],
    ["a claim that nobody knows", { "representative-claim": "fortnight" }, []],
    ["nothing but its fraction", {}, ["7d", "7d_oi"]],
    ["an account that pays for more", { "representative-claim": "seven_day", "overage-status": "allowed" }, []],
    ["the offer of a slower lane", { "representative-claim": "seven_day", "slow-offer": "treatment" }, []],
    ["a status of the whole response", { status: "allowed", "7d_oi-status": "rejected" }, []]
  ] as const)("are used up by %s", (_, more, names) => assert.deepStrictEqual(rejected(more), [...names]))

  it("are used up by a status alone, without a fraction", () =>
    assert.deepStrictEqual(unified({ status: "rejected", "7d_oi-status": "rejected", "7d_oi-reset": reset }), {
      "7d_oi": { used: 1, resetsAt, isRejected: true, models: [] }
    }))
})

describe("Codex's windows", () => {
  it.each([
    ["primary", "300", "5h"],
    ["secondary", "10080", "7d"],
    ["primary", "10080", "7d"],
    ["primary", "299", "5h"],
    ["primary", "10079", "7d"],
    ["primary", "43200", "30d"],
    ["primary", "90", "90m"]
  ])("are named by the minutes of their slot: %s with %s is %s", (slot, minutes, name) =>
    assert.deepStrictEqual(
      codex({
        "primary-used-percent": "",
        [`${slot}-used-percent`]: "42",
        [`${slot}-window-minutes`]: minutes,
        [`${slot}-reset-at`]: reset
      }),
      { [name]: { used: 0.42, resetsAt } }
    )
  )

  it("may be one alone, and those of some models are apart", () =>
    assert.deepStrictEqual(
      codex({
        "primary-used-percent": "100",
        "primary-window-minutes": "10080",
        "primary-reset-at": reset,
        "secondary-used-percent": "0",
        "secondary-window-minutes": "0",
        "secondary-reset-at": "",
        "bengalfox-primary-used-percent": "7",
        "bengalfox-primary-window-minutes": "300",
        "bengalfox-primary-reset-at": reset
      }),
      { "7d": { used: 1, resetsAt }, "5h_bengalfox": { used: 0.07, resetsAt, models: [] } }
    ))

  it("end so many seconds after the response, if they say no time", () => {
    const fields = {
      "x-codex-primary-used-percent": "3.5",
      "x-codex-primary-window-minutes": "300",
      "x-codex-primary-reset-after-seconds": "60"
    }
    assert.isUndefined(Signals.fromHeaders(fields))
    const date = new Date(resetsAt - 60_000).toUTCString()
    assert.deepStrictEqual(Signals.fromHeaders({ ...fields, date })?.windows, { "5h": { used: 0.035, resetsAt } })
  })
})

describe("headers of formats that nobody has seen", () => {
  const piece = Schema.Union([
    Schema.String,
    Schema.Literals([
      "1",
      "0",
      ".5",
      "100",
      "-1",
      "NaN",
      "1e9",
      "rejected",
      "allowed",
      reset,
      "9".repeat(17),
      "five_hour"
    ])
  ])
  const part = Schema.Literals([
    "5h",
    "7d",
    "0h",
    "99999w",
    "7d_oi",
    "7d_sonnet",
    "7d_constructor",
    "__proto__",
    "toString",
    "overage",
    "-"
  ])
  const field = Schema.Literals([
    "-utilization",
    "-status",
    "-reset",
    "-used-percent",
    "-window-minutes",
    "-reset-at",
    "-reset-after-seconds"
  ])
  const prefix = Schema.Literals(["anthropic-ratelimit-unified-", "x-codex-", "x-codex-primary", "x-codex-a-secondary"])
  const name = Schema.Tuple([prefix, Schema.Union([part, Schema.Literal("")]), field])
  const known = Schema.Literals([
    "x-codex-primary-used-percent",
    "anthropic-ratelimit-unified-status",
    "anthropic-ratelimit-unified-representative-claim",
    "date"
  ])
  const headers = Schema.Array(Schema.Tuple([Schema.Union([name, known]), piece]))

  it.prop(
    "never throw, and tell only windows with a name, a fraction and a time",
    { headers },
    ({ headers }) => {
      const fields = headers.map(([name, value]) => [typeof name === "string" ? name : name.join(""), value] as const)
      const { windows = {} } = Signals.fromHeaders(Object.fromEntries(fields)) ?? {}
      assert.isAtMost(Object.keys(windows).length, 40)
      for (const [name, { isRejected, models, resetsAt, used }] of Object.entries(windows)) {
        assert.match(name, /^[1-9]\d*[mhd](_[a-z0-9_]{1,32})?$/)
        assert.isTrue(used >= 0 && used <= 1 && resetsAt > 0 && resetsAt < 1e14, JSON.stringify({ used, resetsAt }))
        if (isRejected !== undefined) assert.isTrue(isRejected)
        if (models !== undefined) assert.isAtMost(models.length, 1)
      }
    },
    { arbitrary: { runs: 300 } }
  )

  it("leave what is known of the usual windows as it is", () => {
    const usual = { "5h-utilization": "0.2", "5h-reset": reset }
    const before = unified(usual)
    for (const more of [
      { "7d-utilization": "38.5", "7d-reset": reset },
      { "7d-utilization": "0.3", "7d-reset": "soon" },
      { "month-utilization": "1", "month-reset": reset },
      { "5x-utilization": "1", "5x-reset": reset, "5h-tier": "gold", "5h-status": "paused" }
    ]) {
      assert.deepStrictEqual(unified({ ...usual, ...more } as Readonly<Record<string, string>>), before)
    }
  })
})
