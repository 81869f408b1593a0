/**
 * The grid of concurrency limits: providers that limit the calls in flight and do not say so. The limit and the time of an answer,
 * each with random rejections, headers, and a token limit that binds as well.
 */
import { type Options, scenario } from "./build.ts"
import type { Scenario } from "./scenario.ts"

/** What each shape must reach: the part of the limit that is used, and that of calls that are rejected and not at random. */
export const minUsed = 0.93
export const maxRejected = 0.04

/** The calls of a run, if the limit is used all the time, and the shortest run: it takes seconds until anything can be known. */
const calls = 400
const minMillis = 60_000

const limits = [10, 50]
const latencies = [1_000, 10_000, 60_000]

/** What may come with the limit; the names are the columns of a table. */
const shapes: { readonly [name: string]: Options } = {
  "no headers": { headers: "none" },
  headers: { headers: "exact" },
  "1 % random": { headers: "none", random429: 0.01 },
  "5 % random": { headers: "none", random429: 0.05 },
  "headers, 5 % random": { headers: "exact", random429: 0.05 },
  "tokens bind": { headers: "none" },
  "tokens bind, headers": { headers: "exact" },
  "tokens bind, 5 % random": { headers: "none", random429: 0.05 }
}

interface Shape {
  readonly limit: number
  readonly latency: number
  readonly name: string
  readonly scenario: Scenario
}

/** Calls that the limit allows each minute. */
const allowed = (limit: number, latency: number) => (limit / latency) * 60_000

export const grid: ReadonlyArray<Shape> = limits.flatMap((limit) =>
  latencies.flatMap((latency) =>
    Object.entries(shapes).map(([name, options]): Shape => {
      const perMinute = allowed(limit, latency)
      const title = `${limit} in flight, answers after ${latency / 1000} s, ${name}`
      return {
        limit,
        latency,
        name,
        scenario: scenario(title, {
          told: "nothing",
          perMinute: name.includes("tokens bind") ? perMinute : 10 * perMinute,
          concurrency: limit,
          latency: { mean: latency, sigma: 0.5 },
          millis: Math.max(minMillis, Math.round(((1.1 * calls) / perMinute) * 60_000)),
          ...options
        })
      }
    })
  )
)
