/**
 * The page `docs/lab.md`: the race over all scenarios in Markdown.
 *
 * @since 0.1.0
 */
import type { Result } from "./race.ts"
import * as Words from "../words.ts"
import * as Matrix from "./matrix.ts"
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
  incident: (of) =>
    `Fixed retries never end here because rejections are charged: eleven agents that ask every second use up what is refilled. Five attempts lose most agents. The SDKs wait exactly what \`retry-after\` says, all at once, and collide again. Where estimates are exact and nobody else calls, a bucket that is charged before each call is as good as the library (\`incident-fix\`, ${seconds(of("incident-fix"))}) or nearly (\`effect-rate-limiter\`, ${seconds(of("effect-rate-limiter"))}). What it lacks shows in other weather.`,
  burst: (of) =>
    `A whole minute's worth is there to begin with. \`floodgate-unknown\` has no limits: it begins with one call and doubles, until headers and ${Words.counted(of("floodgate-unknown").rejections, "rejection")} have shown it what there is (${seconds(of("floodgate-unknown"))}).`,
  many: (of) =>
    `Equal shares are right for tenants, and have a price in one job: the library shares by tokens, so that an agent whose calls are large ends later, and at the end a few agents are left that cannot use the whole limit. Its median wait is shorter for it. Where only the end counts, say how many tokens each agent will use (\`work\` of \`Agents\`): then shares follow what is left, all end together, and it takes ${seconds(of("floodgate-weighted"))} instead of ${seconds(of("floodgate"))}. One key for all agents (\`floodgate-fifo\`, ${seconds(of("floodgate-fifo"))}) does as well here, where all have as many calls. \`floodgate-estimates\` starts with guesses that are half too high, and has learned after a few calls. A semaphore of 4 is never rejected and uses a fifth of the limit.`,
  flaky: () =>
    "A call that times out takes 30 s and is made again after that: the makespan is that of the unluckiest agent. Strategies that give up after other failures than rate limits end sooner, without the work.",
  outage: () =>
    "If each agent spends its own attempts, none of them lasts for thirty seconds. The library finds out with one call at a time, after pauses of 1, 2, 5, 10 and 20 s. What it is behind the oracle, which asks every second, is the remainder of its last pause. `effect-rate-limiter` has five attempts with growing waits for each agent, and here the last of them come just after the end; in a longer outage they would all be spent.",
  "outage-at-start": () =>
    "As in `outage`: the provider is back after 10 s, and the library's next probe goes out after 18. The SDKs have spent their attempts by then.",
  neighbour: (of) =>
    `Nobody can know what somebody else will take. The oracle sees the provider's level at every instant. The library sees it in answers only: it learns what is left to it from ${Words.counted(of("floodgate").rejections, "rejection")} and from headers.`,
  "neighbour-in-bursts": (of) =>
    `A burst empties the bucket within two seconds, and calls that are sent then are rejected (${Words.counted(of("floodgate").rejections, "rejection")} with the library). It must not take that for the rate from now on: headers show when the neighbour has gone.`,
  "random-rejections": (of) =>
    `A rejection for no reason delays its own call and nothing else: the library has ${Words.counted(of("floodgate").rejections, "rejection")}, as many as the provider injects. The losses of the SDKs come from the limit, not from the weather. A semaphore of 4 loses nothing, and takes ${(of("semaphore").makespanSeconds / of("oracle").makespanSeconds).toFixed(1)} times as long.`,
  "undeclared-concurrency": (of) =>
    `The provider rejects an eleventh call, and neither its console nor its headers say why. The library's bound on calls in flight finds that out with ${Words.counted(of("floodgate").rejections, "rejection")}. A limiter of tokens cannot: \`effect-rate-limiter\` loses ${Words.thousands(of("effect-rate-limiter").failedCalls)} calls. A semaphore is right here, if its number is guessed well; 4 is too few.`,
  "slow-start": (of) =>
    `No header names a limit on growth. The oracle knows it; all others run into it. The library finds it with ${Words.counted(of("floodgate").rejections, "rejection")}, and then lets usage grow more slowly than the provider would. \`fixed-retry-forever\` is quicker (${seconds(of("fixed-retry-forever"))}) because it never stops asking: ${Words.thousands(of("fixed-retry-forever").rejections)} rejections, which the provider might count.`
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

## All scenarios

Simulated seconds until all of the work was done, or how many calls were lost.

${Matrix.markdown(races.map(({ results, scenario }) => ({ name: scenario.name, results })))}

## Against the oracle

\`floodgate\` shares equally, as tenants should; \`floodgate-weighted\` is for one job, when it is known what each agent will
use. The others are those that did all of the work. Where the library is more than 5 % behind the oracle, or more than
2 % behind somebody else, the text below the scenario's table says why.

${summary(races)}

${races.map(section).join("\n\n")}
`
