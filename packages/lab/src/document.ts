/**
 * Renders the page `docs/figures/lab.md`: the races of all scenarios in Markdown.
 *
 * @stability experimental
 * @since 0.1.0
 */
import type { RaceResult } from "./race.ts"
import * as Words from "floodgate/internal/words"
import * as Matrix from "./matrix.ts"
import type { Scenario } from "./scenario.ts"
import * as Strategies from "./strategies/index.ts"
import * as Table from "./table.ts"

/**
 * One scenario, and the results of the strategies in it.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export interface ScenarioRace {
  readonly scenario: Scenario
  readonly results: ReadonlyArray<RaceResult>
}

/** A strategy's result, by its name. */
type ResultOf = (strategy: string) => RaceResult

const seconds = ({ makespanSeconds }: RaceResult): string => Words.seconds(makespanSeconds)

const rejectionsOf = ({ rejections }: RaceResult): string => Words.counted(rejections, "rejection")

/** Remarks below the tables of scenarios. All of their figures come from the results. */
const remarks: Readonly<Record<string, (of: ResultOf) => string>> = {
  incident: (of) =>
    `Rejections count against the limit here, so fixed retries never finish: eleven agents that retry every second use up the refill. The SDKs wait exactly \`retry-after\`, so the rejected calls collide again. Without faults and with exact token counts, any bucket of tokens does well: \`bottleneck-tuned\` takes ${seconds(of("bottleneck-tuned"))}, \`effect-limiter-tuned\` ${seconds(of("effect-limiter-tuned"))}, \`hand-written\` ${seconds(of("hand-written"))}. With default settings, Floodgate must first find the limits and the size of calls: ${seconds(of("floodgate-as-installed"))} and ${rejectionsOf(of("floodgate-as-installed"))}. The other scenarios show how the limiters differ.`,
  burst: (of) =>
    `A full minute's worth is available at the start. \`floodgate-unknown\` starts with one call and doubles until headers and ${rejectionsOf(of("floodgate-unknown"))} have shown the limits.`,
  many: (of) =>
    `Fair shares cost time in a single job. Floodgate gives each agent the same share of tokens, so agents with larger calls finish later, and the last few cannot use the whole limit. In return, the median wait is shorter. If only the end matters, state each agent's \`work\` (\`floodgate-weighted\`): ${seconds(of("floodgate-weighted"))} instead of ${seconds(of("floodgate"))}. A semaphore of 4 is never rejected and uses a fifth of the limit.`,
  flaky: () =>
    "A call that times out takes 30 s and is then repeated, so the makespan is that of the unluckiest agent. Strategies that give up on other failures than rate limits end sooner, with work undone.",
  outage: () =>
    "The attempts of a single call are used up before the 30 s are over. Floodgate sends one probe at a time, after pauses of 1, 2, 3, 5, 7 and 10 s. The oracle probes every second, so Floodgate is behind it by the rest of its last pause. The last attempts of `effect-rate-limiter` happen to come just after the end; in a longer outage it would have none left.",
  "outage-at-start": (of) =>
    `The provider is back after 10 s. Floodgate sends its next probe after 18 s, so it ends after \`bottleneck-tuned\` (${seconds(of("bottleneck-tuned"))}), \`hand-written\` (${seconds(of("hand-written"))}) and Effect's limiter, whose retries happen to come earlier. The SDKs have spent their retries by then.`,
  neighbour: (of) =>
    `Nobody can know in advance what others will use. The oracle sees the provider's level at any moment; Floodgate learns what is left to it from headers and ${rejectionsOf(of("floodgate"))}. A bucket that is charged for each attempt, such as \`bottleneck-tuned\`, goes on at its own rate: ${rejectionsOf(of("bottleneck-tuned"))}.`,
  "neighbour-in-bursts": (of) =>
    `A burst empties the bucket within two seconds, and calls sent then are rejected (${rejectionsOf(of("floodgate"))} with Floodgate). Headers show when the neighbour has stopped.`,
  "random-rejections": (of) =>
    `Floodgate gets ${rejectionsOf(of("floodgate"))}, which is what the provider injects: each delays only its own call. The losses of the SDKs come from the limit. A semaphore of 4 loses nothing and takes ${(of("semaphore").makespanSeconds / of("oracle").makespanSeconds).toFixed(1)} times as long.`,
  "undeclared-concurrency": (of) =>
    `The provider rejects an eleventh concurrent call, and no header says why. Floodgate finds the limit by itself, with ${rejectionsOf(of("floodgate"))}. A rate limiter cannot. Around the SDK's retries, \`bottleneck\` loses ${Words.thousands(of("bottleneck").failedCalls)} calls; with ten attempts around it, \`bottleneck-tuned\` gets ${rejectionsOf(of("bottleneck-tuned"))}, and an unlucky agent or two lose their calls with one seed and not with another. \`hand-written\` does well, because its bucket stays closed for each \`retry-after\`. A semaphore with the right number is the best tool here, but 4 is too few.`,
  "two-places-outage": (of) =>
    `Calls leave the place within a second. Floodgate is behind the oracle (${seconds(of("oracle"))}), which knows the end of the outage, by the time until the next probe.`,
  "slow-start": (of) =>
    `No header announces a limit on growth. Floodgate finds it with ${rejectionsOf(of("floodgate"))}, and then grows more slowly than the provider allows. \`fixed-retry-forever\` is quicker (${seconds(of("fixed-retry-forever"))}) because it never stops asking: ${Words.thousands(of("fixed-retry-forever").rejections)} rejections, which a provider might count.`
}

/**
 * The part of the page about one scenario.
 *
 * @stability experimental
 * @category rendering
 * @since 0.1.0
 */
export const section = ({ results, scenario }: ScenarioRace): string => {
  const remark = remarks[scenario.name]?.((name) => results.find(({ strategy }) => strategy === name)!)
  return [
    `## ${scenario.name}`,
    "",
    `${scenario.summary.slice(0, 1).toUpperCase()}${scenario.summary.slice(1)}.`,
    "",
    Table.markdown(scenario, results),
    ...(remark === undefined ? [] : ["", remark])
  ].join("\n")
}

const isOurs = (name: string): boolean => name.startsWith("floodgate")
const quickest = (results: ReadonlyArray<RaceResult>): RaceResult =>
  results.reduce((best, one) => (one.makespanSeconds < best.makespanSeconds ? one : best))

/** Says how much slower a result is than another. */
const behind = (one: RaceResult, other: RaceResult): string =>
  Words.percent(Math.max(0, one.makespanSeconds / other.makespanSeconds - 1))

/** Against the oracle, and against the best of the others. */
const summary = (races: ReadonlyArray<ScenarioRace>): string => {
  const lines = races.map(({ results, scenario }) => {
    const of: ResultOf = (name) => results.find(({ strategy }) => strategy === name)!
    const ours = [
      "floodgate-as-installed",
      "floodgate-estimates",
      "floodgate-unknown",
      "floodgate",
      "floodgate-weighted"
    ].map(of)
    const others = results.filter(
      ({ failedCalls, finished, strategy }) =>
        finished && failedCalls === 0 && !isOurs(strategy) && strategy !== "oracle"
    )
    const best = others.length === 0 ? undefined : quickest(others)
    const cells = [
      `[${scenario.name}](#${scenario.name})${scenario.faulty ? ", with faults" : ""}`,
      seconds(of("oracle")),
      ...ours.map((one) => `${seconds(one)}, ${behind(one, of("oracle"))}`),
      best === undefined ? "none" : `\`${best.strategy}\`, ${seconds(best)}`,
      best === undefined ? "-" : behind(of("floodgate"), best)
    ]
    return `| ${cells.join(" | ")} |`
  })
  return [
    "| scenario | oracle | default settings, behind | limits known, behind | counts known, behind | `floodgate`, behind | `floodgate-weighted`, behind | best other strategy | `floodgate` behind that |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |",
    ...lines
  ].join("\n")
}

const strategyList = (): string =>
  Strategies.all
    .map(
      ({ name, settings = "", summary, why = "" }) =>
        `- **\`${name}\`**: ${summary}.${settings === "" ? "" : `\n  \`${settings}\``}${why === "" ? "" : `\n  ${why}`}`
    )
    .join("\n")

/**
 * The whole page.
 *
 * @stability experimental
 * @category rendering
 * @since 0.1.0
 */
export const render = (races: ReadonlyArray<ScenarioRace>): string => `# The lab

<!-- Written by \`npm run lab -- --docs docs\`. Change packages/lab/src/document.ts, not this page. -->

How long each strategy takes in each scenario, and how many calls it loses. All strategies make the same
calls, in simulated time, against the simulated provider of \`floodgate/testing\`. Run it with
\`npm run lab\`, or one scenario with \`npm run -s floodgate -- storm --scenario NAME\`. The same seed gives the same figures.
[Reading the lab](../guides/testing-your-fan-out.md#reading-the-lab) explains the scenarios and the columns. Figures depend on
the provider, which the line above each table describes: fixed retries, for example, never finish if rejected requests count. Agents send prose, code,
JSON, Chinese or Japanese, whose characters per token vary by agent and by call, as measured (\`ProviderSim.tokenizer\`).

![Makespan of each strategy in the incident](../images/incident-makespan.svg)

## All scenarios

Simulated seconds until all of the work was done, or how many calls were lost; then the 429s. The second table has the scenarios in
which a model has two [places](../guides/places.md), with the ways to use both.

${Matrix.markdown(races.map(({ results, scenario }) => ({ name: scenario.name, results })))}

## Against the oracle

The oracle is the best possible schedule. The table shows how far Floodgate is behind it, and behind the best of the other strategies
that did all of the work. \`floodgate-as-installed\` has default settings. \`floodgate-estimates\` knows the limits, and
\`floodgate-unknown\` the tokens of each call. \`floodgate\` knows both, and gives all agents equal shares; \`floodgate-weighted\` is for
a single job whose sizes are known. The text below each table explains larger gaps.

${summary(races.filter(({ scenario }) => scenario.places === undefined))}

${races.map(section).join("\n\n")}

## Strategies

How each strategy is configured, and why its users would choose these settings. \`npm run lab -- --explain\` prints the same.

${strategyList()}

${Strategies.about}
`
