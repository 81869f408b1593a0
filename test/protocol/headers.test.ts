import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import * as Headers from "../../src/protocol/headers.ts"
import * as Limits from "floodgate/Limits"

type Table = Record<string, string>
const get = (headers: Table) => (name: string) => headers[name]
/** 24 Nov 2026, 12:00:00 UTC. */
const now = 1_795_521_600_000
const signal = (headers: Table) => Headers.signalOf(get(headers))
const dimensions = (headers: Table) => signal(headers)?.dimensions
const wait = (headers: Table) => Headers.retryAfterMillis(get(headers), now)

/** The headers of a real 429 (github.com/whoz-oss/coday/issues/110), the day added. */
const sample: Table = {
  date: "Tue, 14 Oct 2025 15:14:45 GMT",
  "anthropic-ratelimit-input-tokens-limit": "200000",
  "anthropic-ratelimit-input-tokens-remaining": "0",
  "anthropic-ratelimit-input-tokens-reset": "2025-10-14T15:15:48Z",
  "anthropic-ratelimit-output-tokens-limit": "80000",
  "anthropic-ratelimit-output-tokens-remaining": "80000",
  "anthropic-ratelimit-output-tokens-reset": "2025-10-14T15:14:45Z",
  "anthropic-ratelimit-requests-limit": "1000",
  "anthropic-ratelimit-requests-remaining": "1000",
  "anthropic-ratelimit-requests-reset": "2025-10-14T15:14:45Z",
  "anthropic-ratelimit-tokens-limit": "280000",
  "anthropic-ratelimit-tokens-remaining": "80000",
  "anthropic-ratelimit-tokens-reset": "2025-10-14T15:14:45Z",
  "retry-after": "16",
  "x-should-retry": "true"
}

describe("headers", () => {
  it("are those of the fast mode in an answer of that mode", () => {
    const fast = {
      "anthropic-fast-input-tokens-limit": "50000",
      "anthropic-fast-input-tokens-remaining": "42000",
      "anthropic-fast-output-tokens-limit": "10000",
      "anthropic-fast-output-tokens-remaining": "9000"
    }
    // The standard limits are those of another pool.
    for (const headers of [fast, { ...sample, ...fast }]) {
      assert.deepStrictEqual(dimensions(headers), {
        inputTokens: { limit: 50_000, remaining: 42_000, roundedTo: 1_000 },
        outputTokens: { limit: 10_000, remaining: 9_000, roundedTo: 1_000 }
      })
    }
  })

  it("are not those of the priority tier, because a call of that tier also draws from the standard limits", () => {
    const priority = {
      "anthropic-priority-input-tokens-limit": "10000",
      "anthropic-priority-input-tokens-remaining": "0",
      "anthropic-priority-output-tokens-limit": "10000",
      "anthropic-priority-output-tokens-remaining": "0"
    }
    assert.deepStrictEqual(dimensions({ ...sample, ...priority }), dimensions(sample))
    assert.isUndefined(signal(priority))
  })

  describe("signalOf", () => {
    it("reads the separate limits of a real 429 and leaves out the combined one that hides them", () => {
      assert.deepStrictEqual(signal(sample), {
        dimensions: {
          requests: { limit: 1_000, remaining: 1_000, roundedTo: 1 },
          inputTokens: { limit: 200_000, remaining: 0, roundedTo: 1_000 },
          outputTokens: { limit: 80_000, remaining: 80_000, roundedTo: 1_000 }
        }
      })
    })

    it("reads Anthropic's combined limit if there is no other", () => {
      assert.deepStrictEqual(
        dimensions({ "anthropic-ratelimit-tokens-limit": "280000", "anthropic-ratelimit-tokens-remaining": "80000" }),
        { tokens: { limit: 280_000, remaining: 80_000, roundedTo: 1_000 } }
      )
    })

    it("reads OpenAI's limits", () => {
      assert.deepStrictEqual(
        dimensions({
          "x-ratelimit-limit-requests": "60",
          "x-ratelimit-remaining-requests": "59",
          "x-ratelimit-reset-requests": "1s",
          "x-ratelimit-limit-tokens": "150000",
          "x-ratelimit-remaining-tokens": "149984",
          "x-ratelimit-reset-tokens": "6m0s"
        }),
        {
          requests: { limit: 60, remaining: 59, roundedTo: 1 },
          tokens: { limit: 150_000, remaining: 149_984, roundedTo: 1 }
        }
      )
    })

    it("uses the project's tokens if they are the tighter limit", () => {
      const headers = {
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-tokens": "140000",
        "x-ratelimit-limit-project-tokens": "50000"
      }
      const left = (project: string) =>
        dimensions({ ...headers, "x-ratelimit-remaining-project-tokens": project })?.tokens?.remaining
      assert.strictEqual(left("20"), 20)
      assert.strictEqual(dimensions(headers)?.tokens?.remaining, 140_000)
    })

    it.each<[string, string, NonNullable<ReturnType<typeof signal>>["dimensions"]["requests"]]>([
      ["60", "59", { limit: 60, remaining: 59, roundedTo: 1 }],
      ["60", "61", { limit: 60, remaining: 60, roundedTo: 1 }],
      ["60", "-1", { limit: 60 }],
      ["60", "NaN", { limit: 60 }],
      ["60", "1e300", { limit: 60 }],
      ["0", "0", undefined],
      ["0.000001", "0", undefined],
      ["-1", "0", undefined],
      ["1e300", "5", undefined],
      ["9999999999999", "5", undefined],
      ["unlimited", "5", undefined]
    ])("reads a limit of %s with %s remaining as %o", (limit, remaining, expected) => {
      const headers = { "x-ratelimit-limit-requests": limit, "x-ratelimit-remaining-requests": remaining }
      assert.deepStrictEqual(dimensions(headers)?.requests, expected)
    })

    it("reads the limits per minute of servers that name the window, and not those of a day", () => {
      const headers = {
        "x-ratelimit-limit-requests-day": "1000",
        "x-ratelimit-remaining-requests-day": "750",
        "x-ratelimit-limit-tokens-minute": "60000",
        "x-ratelimit-remaining-tokens-minute": "50",
        "x-ratelimit-reset-tokens-minute": "26.5"
      }
      assert.deepStrictEqual(dimensions(headers), {
        tokens: { limit: 60_000, remaining: 50, roundedTo: 1 }
      })
    })

    it("reads the limits of servers that name no dimension as requests", () => {
      assert.deepStrictEqual(
        dimensions({
          "x-ratelimit-limit": "20",
          "x-ratelimit-remaining": "0",
          "x-ratelimit-reset": String(now + 5_000)
        }),
        { requests: { limit: 20, remaining: 0, roundedTo: 1 } }
      )
    })

    it("reads the IETF draft, and of its policies only those of one minute", () => {
      const policy = '"burst";q=100;w=60,"daily";q=1000;w=86400'
      const read = (state: string) => dimensions({ "ratelimit-policy": policy, ratelimit: state })
      assert.deepStrictEqual(read('"burst";r=50;t=30'), {
        requests: { limit: 100, remaining: 50, roundedTo: 1 }
      })
      assert.deepStrictEqual(read('"daily";r=900;t=30,"burst";r=50'), {
        requests: { limit: 100, remaining: 50, roundedTo: 1 }
      })
      assert.isUndefined(read('"daily";r=900;t=30'))
      assert.deepStrictEqual(dimensions({ ratelimit: '"default";r=50;t=30' }), {
        requests: { remaining: 50, roundedTo: 1 }
      })
      assert.isUndefined(dimensions({ "ratelimit-policy": '"b";q=9;w=60;qu="content-bytes"', ratelimit: '"b";r=5' }))
      assert.deepStrictEqual(
        dimensions({ "ratelimit-policy": '"t";q=900;w=60;qu="tokens"', ratelimit: '"t";r=5' })?.tokens,
        { limit: 900, remaining: 5, roundedTo: 1 }
      )
    })

    it("reads the older draft", () => {
      const rest = { "ratelimit-remaining": "50", "ratelimit-reset": "30" }
      const expected = { requests: { limit: 100, remaining: 50, roundedTo: 1 } }
      assert.deepStrictEqual(dimensions({ "ratelimit-limit": "100", ...rest }), expected)
      assert.deepStrictEqual(dimensions({ "ratelimit-limit": "100, 100;w=60", ...rest }), expected)
      assert.isUndefined(dimensions({ "ratelimit-limit": "100, 100;w=3600", ...rest }))
    })

    it("finds nothing if no limit is stated", () => {
      assert.isUndefined(signal({}))
      assert.isUndefined(signal({ date: "Tue, 14 Oct 2025 15:14:45 GMT", "content-type": "text/html" }))
    })
  })

  describe("retryAfterMillis", () => {
    it.each<[string, Table, number | undefined]>([
      ["the real 429", sample, 16_000],
      ["seconds", { "retry-after": "16" }, 16_000],
      ["fractions of seconds", { "retry-after": "0.25" }, 250],
      ["milliseconds", { "retry-after-ms": "1500.5" }, 1_500.5],
      ["milliseconds before seconds", { "retry-after-ms": "1500", "retry-after": "16" }, 1_500],
      ["seconds when the milliseconds are nonsense", { "retry-after-ms": "soon", "retry-after": "16" }, 16_000],
      ["an HTTP date", { "retry-after": "Tue, 24 Nov 2026 12:00:10 GMT" }, 10_000],
      [
        "an HTTP date by the provider's clock",
        { "retry-after": "Tue, 24 Nov 2026 13:00:10 GMT", date: "Tue, 24 Nov 2026 13:00:00 GMT" },
        10_000
      ],
      ["a date that has passed", { "retry-after": "Tue, 24 Nov 2026 11:00:10 GMT" }, undefined],
      ["a date that is none", { "retry-after": "Tue, 99 Xxx 2026 11:00:10 GMT" }, undefined],
      ["an hour", { "retry-after": "3600" }, 3_600_000],
      ["a year", { "retry-after": "31536000" }, 3_600_000],
      ["zero", { "retry-after": "0" }, undefined],
      ["a negative number", { "retry-after": "-16" }, undefined],
      ["1e300", { "retry-after": "1e300" }, undefined],
      ["forty digits", { "retry-after": "9".repeat(40) }, undefined],
      ["NaN", { "retry-after": "NaN" }, undefined],
      ["an empty text", { "retry-after": "" }, undefined],
      ["nothing", {}, undefined]
    ])("reads %s", (_, headers, millis) => {
      assert.strictEqual(wait(headers), millis)
    })
  })

  describe("on any text", () => {
    const names = [
      ...Object.keys(sample),
      "retry-after-ms",
      ...["limit", "remaining", "reset"].flatMap((field) => [
        `ratelimit-${field}`,
        ...["", "-requests", "-tokens", "-project-tokens"].map((suffix) => `x-ratelimit-${field}${suffix}`)
      ]),
      "ratelimit",
      "ratelimit-policy"
    ]
    // Half of the values consist of meaningful pieces, so that parsers get past their first check.
    const piece = Schema.Union([
      Schema.String,
      Schema.Literals(["1", "0", "9".repeat(17), "-", ".", "e300", "ms", "s", "m", ";", "=", ",", '"', "w=60", "r=5"]),
      Schema.Literals(["2026-11-24T12:00:30Z", "1970-01-01T00:00:00Z", "Tue, 24 Nov 2026 12:00:10 GMT", "Infinity"])
    ])
    const headers = Schema.Array(Schema.Tuple([Schema.Literals(names), Schema.Array(piece)]))
    const clock = Schema.Literals([0, now, -1e15, Number.MAX_SAFE_INTEGER])

    it.prop(
      "never throws, and every number is finite and in range",
      { headers, clock },
      ({ headers, clock }) => {
        const lookup = get(Object.fromEntries(headers.map(([name, pieces]) => [name, pieces.join("")])))
        const within = (value: number | undefined, low: number, high: number) =>
          assert.isTrue(value === undefined || (value >= low && value <= high), `${value} of ${low} to ${high}`)
        within(Headers.retryAfterMillis(lookup, clock), 0, 3_600_000)
        const signal = Headers.signalOf(lookup)
        for (const name of Limits.Dimension.literals) {
          const dimension = signal?.dimensions[name]
          within(dimension?.limit, Number.MIN_VALUE, 1e12)
          within(dimension?.remaining, 0, dimension?.limit ?? 1e12)
        }
      },
      { tags: "full", arbitrary: { runs: 2_000 } }
    )
  })
})
