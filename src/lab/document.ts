/**
 * The page `docs/lab.md`: the race over all scenarios in Markdown.
 *
 * @since 0.1.0
 */
import type { Result } from "./race.ts"
import type { Scenario } from "./scenario.ts"
import * as Strategies from "./strategies/index.ts"
import * as Table from "./table.ts"

/** What a reader must know of a scenario, where the table alone would mislead. */
const remarks: Readonly<Record<string, string>> = {
  incident:
    "Fixed retries never end here because rejections are charged: eleven agents that ask every second use up what is refilled. Five attempts lose most agents. The SDK's retries wait exactly what `retry-after` says, all of them. With exact estimates the incident's own fix is as good as the library: what it lacks shows below.",
  burst:
    "A whole minute's worth is there to begin with, so headroom is large: a twentieth of 4M tokens. Headers let it shrink. `floodgate-unknown` is told nothing and takes a limit to be safe against every kind of provider, with a twentieth as its burst: it gives the rest of the first minute away.",
  many: "The library shares by tokens, not by turns: an agent whose calls are large finishes later, and at the end a few agents are left that cannot use the whole limit. That is the difference between `floodgate` and `floodgate-fifo`, and its price: more than the 5 % over the oracle that the lab asks for. Its median wait is shorter for it. Give all agents one key where only the end counts. `floodgate-estimates` reserves more than it will use until it has learned.",
  flaky:
    "A call that times out takes 30 s and is made again after that: the makespan is that of the unluckiest agent. Those who give up on other failures than rate limits end sooner, without the work.",
  outage:
    "Nobody's attempts last for thirty seconds if each agent spends its own. The library finds out with one call at a time, and rests for 5, 10 and 20 s between them; what it is behind the oracle, which asks every second, is the end of the last rest.",
  neighbour:
    "Nobody can know what somebody else will take. The oracle sees the provider's level at every instant; the library sees it in answers only, learns of the neighbour by a first rejection, and leaves him more than he needs. That is what it is behind the oracle.",
  "slow-start":
    "No header tells of a growth limit. The oracle knows it; everybody else runs into it. The library halves its rate and comes back over minutes. Whoever knows of such a limit sets `ramp`."
}

/**
 * The part of the page about one scenario.
 *
 * @category rendering
 * @since 0.1.0
 */
export const section = (scenario: Scenario, results: ReadonlyArray<Result>): string =>
  [
    `## ${scenario.name}`,
    "",
    `${scenario.summary.slice(0, 1).toUpperCase()}${scenario.summary.slice(1)}.`,
    "",
    Table.markdown(scenario, results),
    ...(remarks[scenario.name] === undefined ? [] : ["", remarks[scenario.name]!])
  ].join("\n")

const strategyList = (): string => Strategies.all.map(({ name, summary }) => `| \`${name}\` | ${summary} |`).join("\n")

/**
 * The whole page.
 *
 * @category rendering
 * @since 0.1.0
 */
export const render = (sections: ReadonlyArray<string>): string => `# The lab

<!-- Written by \`npm run lab\`. Change src/lab/document.ts, not this page. -->

The same calls under each strategy, each running its real code in simulated time against the simulated provider of
\`floodgate/testing\`. Figures are simulated seconds. A figure says little without the provider model that stands above
its table: whether rejected requests count decides whether fixed retries merely waste calls or never end.

- **makespan**: until the last agent ended. \\* marks one that ended because calls failed: the work was not done.
- **floor**: what no strategy can undercut, from the scenario alone; **ratio** is makespan over floor.
- **p50, p99**: latency of calls that succeeded, waits included.
- **fairness**: the time of the agent that finished last over that of the first.

Run it with \`npm run lab\`, one scenario with \`npm run -s floodgate -- storm --scenario NAME\`. The same seed gives the
same figures.

![Makespan of each strategy in the incident](images/incident-makespan.svg)

| strategy | what it does |
| --- | --- |
${strategyList()}

${sections.join("\n\n")}
`
