/**
 * Random weather by seed. Seeds up to a million are for tuning; those above are held out for judging.
 *
 * | what | how it is drawn |
 * |---|---|
 * | calls a minute | log-uniform, 60 to 60,000 |
 * | latency | log-uniform mean, 1 to 60 s |
 * | tokens of a call | log-uniform mean, 500 to 150,000 |
 * | burst | log-uniform, a hundredth of the limit to all of it; at least four calls |
 * | what binds | input tokens 4, tokens 2, output tokens 1, requests 1 |
 * | headers | exact 3, rounded 5, none 6, stale 2 |
 * | told | rates alone 3, rates and bursts 3, nothing 2 |
 * | random 429s | none 3, 0.1 % 2, 1 % 3, 5 % 2 |
 * | random 500s | none 6, 0.1 % 1, 1 % 1 |
 * | neighbours | in half: 25, 50 and 75 %, square wave, ramp, bursts, one that leaves or comes, polite, each as often; half of the polite ones beside a stated share of half |
 * | an outage | in an eighth: 1 to 30 s, at the start or later, each kind as often |
 * | the limit halved, and back | in an eighth |
 * | a limit of calls in flight | in an eighth: 30 to 90 % of what the limit needs, at least 4 |
 * | a request that always fails | in a sixteenth |
 * | window | bucket 6, sliding 1, fixed 1 |
 * | charged rejections | in an eighth |
 * | retry-after | in three quarters |
 */
import { type Options, scenario } from "./build.ts"
import * as Prng from "./prng.ts"
import { type Failure, fairPart, type Neighbour, type Scenario, showsAfter } from "./scenario.ts"

export const heldOutFrom = 1_000_001

/** Longer if there are few calls or slow answers, and shorter if there are many calls. */
const lengthOf = (perMinute: number, latency: number): number => {
  if (perMinute < 300) return 1_200_000
  return perMinute < 10_000 || latency > 20_000 ? 600_000 : 360_000
}

export const make = (seed: number): Scenario => {
  const prng = Prng.make(seed, 6)
  const chance = (part: number) => prng.next() < part
  const perMinute = Math.round(prng.logUniform(60, 60_000))
  const latency = Math.round(prng.logUniform(1000, 60_000))
  const millis = lengthOf(perMinute, latency)
  const concurrency = Math.round((perMinute / 60_000) * latency * (0.3 + 0.6 * prng.next()))
  const neighbours = chance(1 / 2) ? [neighbourOf(prng, millis)] : []
  const isShared = chance(1 / 2)
  const outages = [outageOf(prng, millis)]
  const from = Math.round(millis * (0.25 + 0.25 * prng.next()))
  const changes = [
    { at: from, factor: 0.5 },
    { at: Math.round(from + millis * 0.25), factor: 1 }
  ]
  const drawn: Options = {
    perMinute,
    millis,
    latency: { mean: latency, sigma: 0.5 },
    inputTokens: { mean: Math.round(prng.logUniform(500, 150_000)), sigma: 0.5 },
    burst: prng.logUniform(1 / 100, 1),
    binds: prng.pick([
      [4, "inputTokens"],
      [2, "tokens"],
      [1, "outputTokens"],
      [1, "requests"]
    ]),
    headers: prng.pick([
      [3, "exact"],
      [5, "rounded"],
      [6, "none"],
      [2, "stale"]
    ]),
    staleMillis: Math.round(prng.logUniform(2000, 15_000)),
    told: prng.pick([
      [3, "bare"],
      [3, "burst"],
      [2, "nothing"]
    ]),
    random429: prng.pick([
      [3, 0],
      [2, 0.001],
      [3, 0.01],
      [2, 0.05]
    ]),
    random5xx: prng.pick([
      [6, 0],
      [1, 0.001],
      [1, 0.01]
    ]),
    window: prng.pick([
      [6, "bucket"],
      [1, "sliding"],
      [1, "fixed"]
    ]),
    neighbours,
    outages: chance(1 / 8) ? outages : [],
    changes: chance(1 / 8) ? changes : [],
    concurrency: chance(1 / 8) ? Math.max(4, concurrency) : undefined,
    poison: chance(1 / 16),
    rejections: chance(1 / 8) ? "charged" : "free",
    retryAfter: chance(3 / 4),
    share: isShared && fairPart({ neighbours }) < 1 ? 0.5 : 1
  }
  return scenario(`random ${seed}: ${featuresOf(drawn).join(", ")}`, drawn)
}

/** The features of a random weather in words, which show where a law is weak. */
const featuresOf = (drawn: Options): ReadonlyArray<string> => {
  const { binds, concurrency, inputTokens, latency, neighbours, outages, perMinute, window } = drawn
  const { changes, headers, poison, random429, random5xx, rejections, retryAfter, share, told } = drawn
  const decade = (value: number) => `${10 ** Math.floor(Math.log10(value))}`
  return [
    `from ${decade(perMinute!)} calls a minute`,
    `from ${decade(latency!.mean / 1000)} s`,
    `from ${decade(inputTokens!.mean)} tokens`,
    `${binds} bind`,
    `headers ${headers}`,
    `told ${String(told)}`,
    `429s ${random429! * 100} %`,
    `500s ${random5xx! * 100} %`,
    `window ${window}`,
    neighbours?.[0] === undefined ? "no neighbour" : `neighbour ${neighbours[0].kind}`,
    share !== 1 && "share stated",
    outages?.[0] !== undefined && `outage ${outages[0].failure}`,
    changes?.[0] !== undefined && "limit halved",
    concurrency !== undefined && `${concurrency < 8 ? "under 8" : "a limit of calls"} in flight`,
    poison === true && "one call always fails",
    rejections === "charged" && "rejections charged",
    retryAfter === false && "no retry-after"
  ].filter((feature) => typeof feature === "string")
}
/** Reads the features of a random weather from its name. */
export const featuresIn = ({ name }: Pick<Scenario, "name">): ReadonlyArray<string> =>
  name.slice(name.indexOf(": ") + 2).split(", ")

const neighbourOf = (prng: Prng.Prng, millis: number): Neighbour => {
  const part = prng.pick([
    [1, 0.25],
    [1, 0.5],
    [1, 0.75]
  ])
  const at = Math.round(millis * (0.3 + 0.4 * prng.next()))
  return prng.pick<Neighbour>([
    [3, { kind: "constant", part }],
    [1, { kind: "square", low: 0.2, high: 0.8, period: 60_000 }],
    [1, { kind: "ramp", from: 0, to: 0.8, over: millis }],
    [1, { kind: "bursts", part: 3, lasts: 5000, period: 30_000 }],
    [1, chance(prng) ? { kind: "constant", part, to: at } : { kind: "constant", part, from: at }],
    [1, { kind: "polite" }]
  ])
}
const chance = (prng: Prng.Prng) => prng.next() < 0.5

const outageOf = (prng: Prng.Prng, millis: number) => {
  const from = chance(prng) ? 0 : Math.round(millis * (0.2 + 0.5 * prng.next()))
  const failure = prng.pick<Failure>([
    [1, "500"],
    [1, "529"],
    [1, "refused"],
    [1, "reset"],
    [1, "timeout"]
  ])
  return { from, to: from + Math.round(prng.logUniform(1000, 30_000)), failure, showsAfter: showsAfter[failure] }
}
