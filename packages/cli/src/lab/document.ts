/**
 * The page `docs/lab.md`: the race over all scenarios in Markdown.
 *
 * @since 0.1.0
 */
import type { Result } from "./race.ts"
import * as Words from "../words.ts"
import type { Scenario } from "./scenario.ts"
import * as Strategies from "./strategies/index.ts"
import * as Table from "./table.ts"

/**
 * One scenario and how the strategies did in it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Raced {
  readonly scenario: Scenario
  readonly results: ReadonlyArray<Result>
}

/** A strategy's result, by its name. */
type Of = (strategy: string) => Result

const seconds = ({ makespanSeconds }: Result): string => `${makespanSeconds.toFixed(1)} s`

/** What a reader must know of a scenario, where the table alone would mislead. Figures come from the results. */
const remarks: Readonly<Record<string, (of: Of) => string>> = {
  incident: () =>
    "Fixed retries never end here because rejections are charged: eleven agents that ask every second use up what is refilled. Five attempts lose most agents. The SDK's retries wait exactly what `retry-after` says, all of them. With exact estimates the incident's own fix is as good as the library: what it lacks shows below.",
  burst: (of) =>
    `A whole minute's worth is there to begin with, so headroom is large: a twentieth of 4M tokens. Headers let it shrink; without them it stays (${seconds(of("floodgate-no-headers"))}). \`floodgate-unknown\` has no limits: the first call goes alone, and what Anthropic's headers then say is left may be used at once.`,
  many: (of) =>
    `Equal shares are right for tenants, and have a price in one job: the library shares by tokens, so that an agent whose calls are large ends later, and at the end a few agents are left that cannot use the whole limit. Its median wait is shorter for it. Where only the end counts, say how many tokens each agent will use (\`work\` of \`Agents\`): then shares go by what is left, all end together, and it takes ${seconds(of("floodgate-weighted"))} instead of ${seconds(of("floodgate"))}. One key for all agents (\`floodgate-fifo\`, ${seconds(of("floodgate-fifo"))}) does as well here, where all have as many calls. \`floodgate-estimates\` starts with guesses that are half too high, and has learned after a few calls.`,
  flaky: () =>
    "A call that times out takes 30 s and is made again after that: the makespan is that of the unluckiest agent. Those who give up on other failures than rate limits end sooner, without the work.",
  outage: () =>
    "Nobody's attempts last for thirty seconds if each agent spends its own. The library finds out with one call at a time, and rests for 5, 10 and 20 s between them; what it is behind the oracle, which probes every second, is the remainder of its last pause.",
  neighbour: () =>
    "Nobody can know what somebody else will take. The oracle sees the provider's level at every instant; the library sees it in answers only, learns of the neighbour by a first rejection, and leaves it more than it needs. A rejection near the end costs most: calls come back one, two, four at a time, and the agent that was rejected ends last. Whose call it hits is luck, and that is the difference between `floodgate` and `floodgate-weighted` here.",
  "slow-start": (of) =>
    `No header names a growth limit. The oracle knows it; all others run into it. The library pays ${of("floodgate").rejections} rejections to find out, waits for as long as the provider asks, and then comes back with one call, two, four: about 10 s each time, which is what it is behind the oracle. \`fixed-retry-forever\` is quicker (${seconds(of("fixed-retry-forever"))}) because it never stops asking: ${Words.thousands(of("fixed-retry-forever").rejections)} rejections, which the provider might count.`
}

/**
 * The part of the page about one scenario.
 *
 * @category rendering
 * @since 0.1.0
 */
export const section = ({ results, scenario }: Raced): string => {
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
const quickest = (results: ReadonlyArray<Result>): Result =>
  results.reduce((best, one) => (one.makespanSeconds < best.makespanSeconds ? one : best))

/** By how much a result is longer than another, for people. */
const behind = (one: Result, other: Result): string =>
  `${Math.max(0, 100 * (one.makespanSeconds / other.makespanSeconds - 1)).toFixed(1)} %`

/** Against the oracle, and against the best of the others. */
const summary = (races: ReadonlyArray<Raced>): string => {
  const lines = races.map(({ results, scenario }) => {
    const of: Of = (name) => results.find(({ strategy }) => strategy === name)!
    const [floodgate, weighted, oracle] = [of("floodgate"), of("floodgate-weighted"), of("oracle")]
    const others = results.filter(
      ({ failedCalls, finished, strategy }) =>
        finished && failedCalls === 0 && !isOurs(strategy) && strategy !== "oracle"
    )
    const best = others.length === 0 ? undefined : quickest(others)
    const cells = [
      `[${scenario.name}](#${scenario.name})${scenario.faulty ? ", with faults" : ""}`,
      seconds(oracle),
      seconds(floodgate),
      behind(floodgate, oracle),
      seconds(weighted),
      behind(weighted, oracle),
      best === undefined ? "none" : `\`${best.strategy}\`, ${seconds(best)}`,
      best === undefined ? "-" : `${behind(floodgate, best)}, ${behind(weighted, best)}`
    ]
    return `| ${cells.join(" | ")} |`
  })
  return [
    "| scenario | oracle | `floodgate` | behind it | `floodgate-weighted` | behind it | best of the others | both behind that |",
    "| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |",
    ...lines
  ].join("\n")
}

const strategyList = (): string => Strategies.all.map(({ name, summary }) => `| \`${name}\` | ${summary} |`).join("\n")

/**
 * The whole page.
 *
 * @category rendering
 * @since 0.1.0
 */
export const render = (races: ReadonlyArray<Raced>): string => `# The lab

<!-- Written by \`npm run lab -- --docs docs\`. Change packages/cli/src/lab/document.ts, not this page. -->

The same calls under each strategy, each running its real code in simulated time against the simulated provider of
\`floodgate/testing\`. Figures are simulated seconds. A figure says little without the provider model that stands above
its table: whether rejected requests count decides whether fixed retries merely waste calls or never end.

- **makespan**: until the last agent ended. \\* marks one that ended because calls failed: the work was not done.
- **floor**: what no strategy can undercut, from the scenario alone; **ratio** is makespan over floor.
- **p50, p99**: latency of calls that succeeded, waits included.
- **fairness**: the time of the agent that finished last over that of the first; - where an agent failed.

Run it with \`npm run lab\`, one scenario with \`npm run -s floodgate -- storm --scenario NAME\`. The same seed gives the
same figures.

![Makespan of each strategy in the incident](images/incident-makespan.svg)

| strategy | what it does |
| --- | --- |
${strategyList()}

## Against the oracle

\`floodgate\` shares equally, as tenants should; \`floodgate-weighted\` is for one job, when it is known what each agent will
use. The others are those that did all of the work. Where the library is more than 5 % behind the oracle, or more than
2 % behind somebody else, the text below the scenario's table says why.

${summary(races)}

${races.map(section).join("\n\n")}
`
