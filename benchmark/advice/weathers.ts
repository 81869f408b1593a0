/** Scenarios of which the end is foreseen: those of the lab with three times their agents, and random weathers. */
import { Scenario, Scenarios } from "@floodgate/lab/internal"
import { mulberry } from "../../test/support/random.ts"

/** A job, a limit and a provider of random sizes: a neighbour, random rejections, overloads, and latencies that vary. */
export const randomWeather = (seed: number): Scenario.Scenario => {
  const random = mulberry(seed)
  const draw = (min: number, max: number) => min + (max - min) * random()
  const whole = (min: number, max: number) => Math.round(draw(min, max))
  const rate = whole(20_000, 100_000)
  const tokens = whole(2_000, 20_000)
  const base = Scenario.make({
    name: `random-${seed}`,
    agents: whole(60, 200),
    calls: whole(3, 12),
    firstTokens: whole(tokens, Math.min(100_000, 2 * rate)),
    tokens,
    outputTokens: whole(100, 800),
    rate,
    burst: whole(2, 5) * rate,
    headers: draw(0, 1) < 0.7 ? "rounded" : "none",
    rejections: draw(0, 1) < 0.5 ? "free" : "charged",
    latencyPerToken: whole(5, 20),
    seed
  })
  const share = draw(0, 1) < 0.5 ? 0 : draw(0.05, 0.3)
  const rejected = draw(0, 0.02)
  return {
    ...base,
    faulty: true,
    provider: {
      ...base.provider,
      latency: { ...base.provider.latency, noise: draw(0, 0.3) },
      faults: [
        { kind: "429", rate: rejected },
        { kind: "529", rate: draw(0, 0.01) }
      ],
      ...(share === 0 ? {} : { neighbour: { share } })
    }
  }
}

/** The scenarios of the lab, with three times as many agents, so that some have not started when a third are done. */
const labScenarios = (seed: number, times = 3): ReadonlyArray<Scenario.Scenario> =>
  Scenarios.names.map((name) => {
    const { agents } = Scenarios.byName(name)!
    return Scenarios.byName(name, { agents: times * agents.length, seed })!
  })

const seedsOf = (commit: string): ReadonlyArray<number> =>
  commit.match(/.{4}/g)!.map((digits) => Number.parseInt(digits, 16))

/** Seeds to which nothing was fitted: the hex digits, four by four, of the commits before the rules that they judge. */
export const heldOut = {
  ends: seedsOf("dcb5c4c7774a810e2e347958a4560e1ba306a60e"),
  ranges: seedsOf("5bd2abd662d1ea28afc4f5c00b8e0d5fb2be3cc6")
} as const

/** The runs of the study. The rules were developed with the first ones. Those held out also have jobs of other sizes. */
export const studies: { readonly [Name in "development" | "held-out"]: () => ReadonlyArray<Scenario.Scenario> } = {
  development: () => [
    ...labScenarios(1),
    ...labScenarios(2),
    ...Array.from({ length: 30 }, (_, i) => randomWeather(i + 1))
  ],
  "held-out": () => {
    const seeds = heldOut.ends
    return [...labScenarios(seeds[0]!, 4), ...labScenarios(seeds[1]!, 5), ...seeds.map(randomWeather)]
  }
}
