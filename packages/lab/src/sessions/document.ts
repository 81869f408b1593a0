/**
 * Renders the page `docs/figures/agents-at-work.md`: the races of sessions in Markdown.
 *
 * @stability experimental
 * @since 0.5.0
 */
import * as Words from "floodgate/internal/words"
import type { RaceResult } from "../race.ts"
import type { Scenario } from "../scenario.ts"
import * as Table from "../table.ts"

/**
 * A scenario of sessions, and the results of the strategies in it.
 *
 * @stability experimental
 * @category models
 * @since 0.5.0
 */
export interface SessionRace {
  readonly scenario: Scenario
  readonly results: ReadonlyArray<RaceResult>
}

/** They know what no program knows, so nobody is compared with them as a rival. */
const knowing: ReadonlyArray<string> = ["uncached-queue", "oracle"]

const isDone = ({ failedCalls, finished }: RaceResult): boolean => finished && failedCalls === 0

const seconds = (value: number): string => Words.thousands(Math.round(value))

const cellOf = (result: RaceResult): string => {
  const { failedCalls, finished, makespanSeconds, meanEndSeconds, rejections } = result
  if (!finished) return `no end, ${Words.thousands(failedCalls)} lost`
  const lost = failedCalls === 0 ? "" : `, **${Words.thousands(failedCalls)} lost**`
  return `${seconds(makespanSeconds)}; ${seconds(meanEndSeconds ?? 0)}; ${Words.thousands(rejections)}${lost}`
}

const line = (cells: ReadonlyArray<string>): string => `| ${cells.join(" | ")} |`

const tableOf = (races: ReadonlyArray<SessionRace>): string =>
  [
    line(["strategy", ...races.map(({ scenario }) => `\`${scenario.name}\``)]),
    line(["---", ...races.map(() => "---:")]),
    ...(races[0]?.results ?? []).map(({ strategy }, row) =>
      line([`\`${strategy}\``, ...races.map(({ results }) => cellOf(results[row]!))])
    )
  ].join("\n")

const summaryOf = (scenario: Scenario): string =>
  `${scenario.summary.slice(0, 1).toUpperCase()}${scenario.summary.slice(1)}`

const listOf = (names: ReadonlyArray<string>): string => (names.length === 0 ? "none" : names.join(", "))

/** Which strategies that lose nothing are better than one of ours, by a measure. */
const better = (
  { results }: SessionRace,
  ours: RaceResult,
  measure: (result: RaceResult) => number
): ReadonlyArray<string> =>
  results
    .filter((one) => isDone(one) && !one.strategy.startsWith("floodgate") && !knowing.includes(one.strategy))
    .filter((one) => measure(one) < measure(ours))
    .toSorted((a, b) => measure(a) - measure(b))
    .map((one) => `\`${one.strategy}\` (${seconds(measure(one))} s; ${Words.counted(one.rejections, "429")})`)

const ends = ({ makespanSeconds }: RaceResult): number => makespanSeconds
const meanEnds = ({ makespanSeconds, meanEndSeconds }: RaceResult): number => meanEndSeconds ?? makespanSeconds

const behind = (one: number, other: number): string => (other === 0 ? "-" : (one / other).toFixed(2))

/** Says how far ours are behind the queue that knows the cache, and who is better. */
const losses = (races: ReadonlyArray<SessionRace>): string => {
  const rows = races.flatMap((race) => {
    const known = race.results.find(({ strategy }) => strategy === "uncached-queue")
    return ["floodgate-as-installed", "floodgate-estimates", "floodgate"].flatMap((name) => {
      const ours = race.results.find(({ strategy }) => strategy === name)
      if (ours === undefined || known === undefined) return []
      const figures = isDone(ours)
        ? [behind(ends(ours), ends(known)), behind(meanEnds(ours), meanEnds(known))]
        : [ours.finished ? `${Words.thousands(ours.failedCalls)} lost` : "no end", "-"]
      const others = [listOf(better(race, ours, ends)), listOf(better(race, ours, meanEnds))]
      return [line([`\`${race.scenario.name}\``, `\`${name}\``, ...figures, ...(isDone(ours) ? others : ["-", "-"])])]
    })
  })
  return [
    line(["scenario", "Floodgate", "time", "mean end", "ends sooner", "sooner in the mean"]),
    line(["---", "---", "---:", "---:", "---", "---"]),
    ...rows
  ].join("\n")
}

/** The difference between the best and the worst of those that lose nothing. */
const spread = ({ results, scenario }: SessionRace): string => {
  const times = results.filter(isDone).map(ends)
  return `${(Math.max(...times) / Math.min(...times)).toFixed(1)} in \`${scenario.name}\``
}

const describe = ({ scenario }: SessionRace): string =>
  `- **\`${scenario.name}\`**: ${summaryOf(scenario)}. Provider: ${Table.scenarioJson(scenario)["provider"] as string}.`

/**
 * The whole page, or an empty one without races.
 *
 * @stability experimental
 * @category rendering
 * @since 0.5.0
 */
export const render = (races: ReadonlyArray<SessionRace>): string => {
  const main = ["sessions-tight", "sessions", "sessions-small-burst"]
  const first = main.flatMap((name) => races.find(({ scenario }) => scenario.name === name) ?? [])
  const others = races.filter(({ scenario }) => !main.includes(scenario.name))
  return `# Agents at work

<!-- Written by \`npm run lab -- --docs docs\`. Change packages/lab/src/sessions/document.ts, not this page. -->

How long strategies take with what coding agents really do: conversations that grow and are read from a cache,
pauses for tools, and sub-agents. [The lab](lab.md) has independent calls instead. Run it with \`npm run lab\`, or one scenario with
\`npm run -s floodgate -- storm --scenario sessions\`. The same seed gives the same figures.

![Time of each strategy with 36 sessions](../images/sessions-makespan.svg)

## Three limits

Seconds until the last session has ended; the mean end of a session; the 429s; and the calls lost, if any. A call that fails ends its
session, so its later calls are lost, too. A strategy that has not ended after 90 minutes is stopped. The limits of 60 sessions would
be 400K, 1M and 2M input tokens a minute, of which the last allows a fifth at once; they are scaled to 36 sessions.

${tableOf(first)}

Of those that lose nothing, the slowest takes as many times as long as the quickest: ${first.map(spread).join(", ")}.

## Other conditions

${tableOf(others)}

## Where Floodgate loses

Time and mean end as multiples of \`uncached-queue\`, which knows what each call reads from the cache; and which of the other strategies
that lose nothing end sooner. Retries without a queue do well on time where rejections are free, as here: small calls pass, and large
ones are rejected until the bucket is full. They pay with 429s, and with lost calls where attempts are bounded.

${losses(races)}

## The scenarios

${races.map(describe).join("\n")}

\`uncached-queue\` serves calls in order of arrival from a bucket of its own, and knows the uncached tokens of each in advance. The
\`oracle\` also sees the provider's state and cache. It is the best schedule in order of arrival, but another order may be better: a large
prompt that is not in the cache lets everybody behind it wait. So a strategy may end before the oracle. All other strategies are
[those of the lab](lab.md#strategies). Limiters that count tokens are told the tokens of the whole prompt, which is what
\`count_tokens\` says.

## What is real

- **Sizes, what is cached, pauses**: the first 40 turns of 36 of the Claude Code sessions of
  [callanjfox/kv-cache-tester](https://github.com/callanjfox/kv-cache-tester) (Weka, Apache-2.0), in numbers. Sessions with a turn of more
  than 182,000 uncached tokens are left out, because the tightest limit would not allow it. Sizes and limits are divided by four,
  so that the races take seconds; headers are exact, because Anthropic's rounding to thousands would be four times as coarse
- **The requests**: the numbers are played as conversations in the form of the Messages API, with the breakpoints that Claude Code
  sets, so everything that reads content is raced, too. Texts are code, prose and JSON
- **The cache**: the simulated provider caches prefixes by content as
  [Anthropic](https://platform.claude.com/docs/en/build-with-claude/prompt-caching) and
  [OpenAI](https://platform.openai.com/docs/guides/prompt-caching) document it: shortest prefixes, lifetimes that each use renews, and a
  prefix is there once the answer that brought it has begun

## What is not

- **The provider** is simulated, and nobody else uses the limit. Rejections are free. Each answer takes 2 s and 15 ms per token of output at
  full size
- **Pauses** are cut to 10 s, so that sessions meet each other. So a prefix expires only if a call waits for five minutes, as
  under \`sessions-tight\`, where whoever lets sessions wait pays for their prompts again
- **The fan-out** is invented: recorded sessions have few sub-agents, one after another
- **Sessions share nothing with each other**, though colleagues at one organisation may share tools and parts of a system prompt
- **Agents do not react**: a session makes the same calls whatever it is answered

## Foreseen ends

\`npm run bench -- advice --ranges\` runs twelve jobs, one after the other, in each of ten random pools: told the limits and not, all
agents at once and as many as advised. It reads the end that a job's progress foresees, and its range, which should have nine of ten
actual ends. The seeds are the digits of a commit's hash, and nothing was fitted to them.

| read when | jobs before | ends with a range | within it | later, earlier | factor | width |
| --- | --- | ---: | ---: | ---: | ---: | ---: |
| the job starts | 2 to 4 | 82 of 120 | 0.89 | 1, 8 | 1.98 | 1.67 |
| the job starts | 5 to 11 | 280 of 280 | 0.93 | 2, 17 | 1.78 | 1.36 |
| a tenth of the agents are done | 2 to 4 | 114 of 120 | 0.94 | 0, 7 | 2.19 | 1.66 |
| a tenth of the agents are done | 5 to 11 | 280 of 280 | 0.96 | 1, 9 | 1.72 | 1.13 |
| a third of the agents are done | 2 to 4 | 120 of 120 | 0.91 | 4, 7 | 1.78 | 0.88 |
| a third of the agents are done | 5 to 11 | 280 of 280 | 0.93 | 4, 16 | 1.50 | 0.65 |
| two thirds of the agents are done | 2 to 4 | 120 of 120 | 0.95 | 0, 6 | 1.52 | 0.71 |
| two thirds of the agents are done | 5 to 11 | 280 of 280 | 0.97 | 4, 4 | 1.38 | 0.53 |

Factor and width are medians: the end of the range to the foreseen end, both from the start of the job, and the whole range as a part of
the job's time. In the first two jobs of a pool, no range is known. Of the misses at a third, 26 of 31 are in jobs that follow advice:
0.87 of those are within, and 0.97 of the jobs that start all agents at once.

## Your own sessions

The gateway [records the sessions of your agents](../gateway.md#record-your-sessions) in numbers, without text and names. The lab races every
strategy in them under your limits, and a forecast says what more of them would take:

\`\`\`sh
npm run -s floodgate -- gateway --record sessions.csv
npm run -s floodgate -- storm all --sessions sessions.csv --input-tokens-per-minute 400000
npm run -s floodgate -- forecast --sessions sessions.csv --agents 40
\`\`\`

[The lab](../guides/command-line.md#your-own-sessions) says which parts of that are real. Claude Code and the agents of four SDKs worked for 27
minutes through the gateway, in front of a simulated provider with a limit of 50,000 uncached input tokens a minute (a bucket of
200,000). Played under the same limits, the recording took 1,537 s instead of 1,617 s, and a session had ended after 1,087 s instead
of 1,135 s in the mean: 5 and 4 % less. \`FLOODGATE_MINUTES=30 npm run test:clients\` repeats that, with \`FLOODGATE_CLAUDE\` for Claude Code.

\`Sessions\` of \`floodgate/testing\` reads a table of turns, and plays it against any client; \`ProviderSim\` caches with its option
\`cache\`. [Testing your fan-out](../guides/testing-your-fan-out.md) shows how to simulate a provider.
`
}
