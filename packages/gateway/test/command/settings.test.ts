import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import * as Gateway from "@floodgate/gateway"
import { complaint } from "../../../../test/support/complaint.ts"
import * as Flags from "../../src/command/flags.ts"
import * as Reload from "../../src/command/reload.ts"
import type { GivenSettings } from "../../src/command/settings.ts"
import type { SettingRules } from "../../src/settings/annotations.ts"
import { docOf } from "../../src/settings/docs.ts"
import * as Settings from "../../src/settings/index.ts"
import { decode, sentence } from "../../src/settings/problems.ts"
import { gateway } from "../support/cli.ts"
import { services } from "../support/services.ts"

const sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

/** A configuration with every setting of 0.4. */
const of04 = {
  upstreams: { anthropic: "https://api.anthropic.com", vllm: "http://127.0.0.1:8000" },
  host: "127.0.0.1",
  port: 8_000,
  token: "0123456789abcdef",
  adminToken: "fedcba9876543210",
  hosts: ["gateway.internal"],
  keys: [{ name: "search", sha256, expires: "2027-01-01" }],
  rules: [
    { name: "a", agent: "n-*", key: "search", model: "m", headers: { "x-team": "s" }, weight: 3, priority: -5 },
    { capPerKey: { dollars: 100, per: "month from 15 in Europe/Berlin" } },
    { cap: { dollars: 5, per: "day" }, capPerAgent: { dollars: 20, per: "5 hours", reserve: "expected" } },
    { capPerKey: { dollars: 1 } }
  ],
  places: {
    m: [
      { upstream: "anthropic", name: "p", model: "n", tier: "flex", account: "a", concurrency: 4, drain: false },
      {
        upstream: "vllm",
        price: {
          input: 1,
          output: 2,
          cacheRead: 0.1,
          long: { input: 2, output: 4, above: 9 },
          maxOutput: 5,
          flex: 0.5
        },
        limits: { requests: { perMinute: 60 } },
        body: { top_k: 1 }
      }
    ]
  },
  placePolicy: "cheapest",
  placeWithin: "1 minute",
  maxHold: 240,
  silence: "20 seconds",
  keepAlive: 10,
  timeout: "10 minutes",
  idleTimeout: 60,
  drain: "2 minutes",
  maxBodyBytes: 1e6,
  maxHeldBytes: 1e7,
  maxConnections: 100,
  streamUsage: false,
  credentials: { anthropic: "env:ANTHROPIC_API_KEY", vllm: "none" },
  limits: { pools: { "sonnet-5": { inputTokens: { perMinute: 2e6, window: "bucket", burst: 1e5, share: 0.5 } } } },
  concurrency: 10,
  maxQueued: 0,
  maxPools: 50,
  prices: { m: { input: 1, output: 2 } },
  windows: { "5h": { share: 0.7 }, "7d": { share: 0.5 }, "7d_sonnet": { share: 0.5 } },
  tryWindowsEvery: "1 hour"
}

/** A valid value of each setting, other than its default. Settings that 0.4 did not have stand here alone. */
const samples: Readonly<Record<string, unknown>> = {
  ...of04,
  concurrency: { measuredUpTo: 64 },
  requestsToken: "who-calls-what-and-when",
  rateLimitHeaders: false,
  rules: [
    ...of04.rules,
    {
      capPerJob: {
        agents: 40,
        atOnce: 16,
        perHour: 60,
        depth: 2,
        tokens: 5e7,
        dollars: 20,
        calls: 2_000,
        reserve: "expected"
      }
    }
  ],
  order: "finish"
}

const said = (value: unknown): string => {
  const result = decode(Settings.Config)(value)
  return Result.isFailure(result) ? sentence(result.failure, (place) => place.slice(1)) : "nothing"
}

const { $schema: _, ...fields } = Settings.Config.fields
const names = Object.keys(fields)

/** What a schema knows of a setting. A setting that was added without `setting` knows nothing. */
const rulesOf = (name: string): SettingRules | undefined =>
  (Settings.rules as Readonly<Record<string, SettingRules>>)[name]

describe("the settings of a gateway", () => {
  it.each(names)("say of %s what it is, what applies without it, how it is set, and what a change needs", (name) => {
    const rules = rulesOf(name)
    assert.isDefined(rules, "define it with setting(...)")
    const { change, flag, variable } = rules!
    const { standard, text } = docOf(name)
    assert.isAbove(text.length, 20, "npm run docs:settings takes its comment over")
    assert.notStrictEqual(standard, "")
    assert.include(["reload", "restart"], change)
    assert.strictEqual(name in Flags.flags, typeof flag === "object")
    assert.isTrue(typeof flag === "object" || flag === "limits" || flag === "none")
    if (variable !== undefined) assert.match(variable, /^FLOODGATE_GATEWAY_[A-Z_]+$/)
  })

  it("load a file of 0.4, and a valid value of each", () => {
    assert.strictEqual(said(of04), "nothing")
    assert.strictEqual(said(samples), "nothing")
    assert.sameMembers(Object.keys(samples), names, "a new setting: add a valid value to the samples of this test")
  })

  it("need a restart where the gateway cannot follow, and have the flags of 0.4", () => {
    const fixed = names.filter((name) => rulesOf(name)?.change === "restart")
    assert.deepStrictEqual(fixed, [
      "host",
      "port",
      "maxConnections",
      "maxQueued",
      "order",
      "maxPools",
      "prices",
      "windows",
      "tryWindowsEvery"
    ])
    const flags = Object.keys(Flags.flags).map((name) => Flags.named(`.${name}`))
    assert.includeMembers(flags, ["--upstream", "--host", "--port", "--host-name", "--max-hold", "--concurrency"])
  })

  it.effect("are refused or taken over at a reload as their rules say", () =>
    Effect.gen(function* () {
      for (const name of names) {
        // A new set of limits is taken over, and new names of pools are not.
        const [before, after] =
          name === "limits"
            ? [{ limits: { requests: { perMinute: 1 } } }, { limits: { requests: { perMinute: 2 } } }]
            : [{}, { [name]: samples[name] }]
        const result = yield* Effect.result(Reload.check(before, after as GivenSettings))
        assert.strictEqual(Result.isFailure(result) ? "restart" : "reload", rulesOf(name)?.change, name)
        assert.isTrue(
          Result.isSuccess(yield* Effect.result(Reload.check(after as GivenSettings, after as GivenSettings)))
        )
      }
    })
  )

  it.effect("are in the help and in the schema for editors, with their defaults", () =>
    Effect.gen(function* () {
      const { out: help } = yield* gateway("--help")
      const { out } = yield* gateway("schema")
      const { properties } = JSON.parse(out) as {
        readonly properties: Readonly<Record<string, { readonly description?: string; readonly default?: Schema.Json }>>
      }
      for (const name of names) {
        const { default: standard, flag } = rulesOf(name)!
        assert.isString(properties[name]?.description, name)
        assert.deepStrictEqual(properties[name]?.default, standard as Schema.Json, name)
        if (typeof flag === "object") assert.include(help, Flags.named(`.${name}`))
      }
    }).pipe(Effect.provide(services()))
  )

  it.effect("show no secret in an error, wherever it stands", () =>
    Effect.gen(function* () {
      const canary = "sec-ret"
      const wrong = [
        ...["token", "adminToken", "requestsToken", "keys", "credentials"].map((name) => ({ [name]: canary })),
        ...["token", "adminToken", "requestsToken"].map((name) => ({ [name]: [canary] })),
        { keys: [canary] },
        { keys: [{ name: "a", sha256: canary }] },
        { keys: [{ name: "a", sha256: [canary], secret: canary }] },
        { credentials: { a: [canary] } },
        { credentials: [canary] },
        { rules: [{ key: [canary] }, { headers: canary }, { headers: { x: [canary] } }] }
      ]
      for (const value of wrong) {
        const text = said(value)
        assert.notStrictEqual(text, "nothing", JSON.stringify(value))
        assert.notInclude(text, canary)
        const thrown = yield* complaint(() => Gateway.make(value as never))
        assert.match(thrown, /^RangeError: Gateway\.make: /)
        assert.notInclude(thrown, canary)
      }
    })
  )

  it.effect("may be nested as deeply as they like, and absent if undefined", () =>
    Effect.gen(function* () {
      const deep = JSON.parse(`{"rules":${"[".repeat(1e5)}${"]".repeat(1e5)}}`) as Gateway.Options
      assert.strictEqual(said(deep), "rules[0]: expected an object, got [[[...]]]")
      assert.match(said(JSON.parse('{"__proto__":{"port":1}}')), /^unknown setting "__proto__": known are /)
      const body: Record<string, unknown> = {}
      body["self"] = body
      const options: Gateway.Options = {
        port: undefined,
        rules: [{ name: "a", weight: undefined, cap: { dollars: 1, per: undefined } }],
        places: { m: [{ upstream: "openai", body, tier: undefined }] },
        maxConnections: 0
      }
      const text = yield* complaint(() => Gateway.make(options))
      assert.match(text, /^RangeError: Gateway\.make: maxConnections: /, "only this is wrong")
    })
  )

  it.effect("name what to do if keys and credentials do not fit", () =>
    Effect.gen(function* () {
      const upstreams = { openai: "https://api.openai.com" }
      const keys = [{ name: "a", sha256 }]
      const withKey = (key: string) => ({ keys, upstreams, credentials: { openai: Redacted.make(key) } })
      const cases: ReadonlyArray<readonly [options: Gateway.Options, says: RegExp]> = [
        [
          { keys, upstreams },
          /: credentials\.openai: the upstream openai has no credential, .*: add its API key, or remove/
        ],
        [withKey("sk-se cret"), /: credentials\.openai: the credential contains a space: copy the API key again/],
        [withKey("sk-secret\n"), /: credentials\.openai: the credential contains a line break: copy/],
        [
          withKey("sk-\u{1F600}"),
          /: credentials\.openai: the credential contains a character that headers cannot have/
        ],
        [
          withKey("sk-ant-oat01-secret"),
          /got the token of a subscription: .*\. Create a key in the provider's console$/
        ],
        [
          { credentials: withKey("sk-secret").credentials },
          /: keys: expected keys, because .* 1 credential, got none: add keys/
        ]
      ]
      for (const [options, says] of cases) {
        const text = yield* complaint(() => Gateway.make(options))
        assert.match(text, says)
        assert.notMatch(text, /secret|cret/)
      }
    })
  )
})
