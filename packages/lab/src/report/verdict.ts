/**
 * Summarises races in a sentence and a few figures.
 *
 * @stability experimental
 * @since 0.2.0
 */
import * as Words from "floodgate/internal/words"
import { type RaceResults, tablesOf } from "../matrix.ts"
import type { RaceResult } from "../race.ts"
import * as Strategies from "../strategies/index.ts"
import type { ScenarioFigures } from "./figures.ts"

/**
 * A figure at the top of a report.
 *
 * @stability experimental
 * @category models
 * @since 0.2.0
 */
export interface Tile {
  readonly value: string
  readonly label: string
  readonly tone?: "good" | "bad" | undefined
}

/**
 * A sentence or two, and the figures behind them.
 *
 * @stability experimental
 * @category models
 * @since 0.2.0
 */
export interface Headline {
  readonly text: string
  readonly tiles: ReadonlyArray<Tile>
}

/**
 * The number of rejections, as "no 429", "1 rejection (429)" or "30 rejections (429)".
 *
 * @stability experimental
 * @category getters
 * @since 0.2.0
 */
export const rejections = (count: number): string =>
  count === 0 ? "no 429" : `${Words.counted(count, "rejection")} (429)`

/**
 * The tile of calls that were answered.
 *
 * @stability experimental
 * @category constructors
 * @since 0.2.0
 */
export const answeredTile = (done: number, planned: number, of = "calls answered"): Tile => ({
  value: `${Words.thousands(done)} of ${Words.thousands(planned)}`,
  label: of,
  tone: done === planned ? "good" : "bad"
})

/**
 * The tile of rejections.
 *
 * @stability experimental
 * @category constructors
 * @since 0.2.0
 */
export const rejectionsTile = (count: number): Tile => ({ value: Words.thousands(count), label: "429s" })

/**
 * The tile of tokens.
 *
 * @stability experimental
 * @category constructors
 * @since 0.2.0
 */
export const tokensTile = (tokens: number, label = "tokens used"): Tile => ({ value: Words.compact(tokens), label })

const isDone = ({ failedCalls, finished }: RaceResult): boolean => finished && failedCalls === 0

const { seconds } = Words

/** More names would make the sentence unreadable. */
const maxNamed = 4

/** A list in a sentence: "a 5, b 3 and 2 others". */
const listed = (items: ReadonlyArray<string>): string => {
  const named = items.slice(0, items.length > maxNamed + 1 ? maxNamed : items.length)
  const rest = items.length - named.length
  const all = rest > 0 ? [...named, `${rest} others`] : named
  return all.length < 2 ? all.join("") : `${all.slice(0, -1).join(", ")} and ${all.at(-1)!}`
}

const against = (result: RaceResult, oracle: RaceResult | undefined): string => {
  if (oracle === undefined || !isDone(oracle)) return ""
  const ratio = result.makespanSeconds / oracle.makespanSeconds
  if (ratio < 1.005) return ", as quickly as the oracle"
  return `, ${Words.percent(ratio - 1, ratio < 1.1 ? 1 : 0)} behind the oracle`
}

/** The result of the race's subject, in a sentence. */
const ofSubject = (result: RaceResult, figures: ScenarioFigures): string => {
  const { calls, results } = figures
  const oracle = results.find(({ strategy }) => strategy === "oracle" && strategy !== result.strategy)
  const who = `${result.strategy.slice(0, 1).toUpperCase()}${result.strategy.slice(1)}`
  if (!result.finished) return `${who} had not finished after ${seconds(result.makespanSeconds)}.`
  if (!isDone(result)) return `${who} lost ${Words.thousands(result.failedCalls)} of ${Words.counted(calls, "call")}.`
  const all = calls === 1 ? "the call" : `all ${Words.thousands(calls)} calls`
  const after = `${seconds(result.makespanSeconds)}${against(result, oracle)}`
  return `${who} answered ${all} in ${after}, with ${rejections(result.rejections)}.`
}

const usual = new Set(Strategies.usual.map(({ name }) => name))

/** Whether it is one of the usual strategies. */
const isUsual = ({ strategy }: RaceResult): boolean => usual.has(strategy)

/** The library with limits and token counts, and without them. */
const told = "floodgate"
const asInstalled = "floodgate-as-installed"
/** Whether it is the library with either limits or token counts. */
const isPartlyTold = (strategy: string): boolean =>
  strategy === "floodgate-estimates" || strategy === "floodgate-unknown"

/** A smaller advantage does not count as faster. */
const noticeable = 0.98

/**
 * Summarises a race: the result of the library or of the best strategy, the strategies that lost calls, and those that were faster.
 *
 * @stability experimental
 * @category constructors
 * @since 0.2.0
 */
export const ofRace = (figures: ScenarioFigures): Headline => {
  const { calls, floorSeconds, results } = figures
  const quickest = results
    .filter(isDone)
    .reduce<RaceResult | undefined>(
      (best, one) => (best === undefined || one.makespanSeconds < best.makespanSeconds ? one : best),
      undefined
    )
  const subject = results.find(({ strategy }) => strategy === told) ?? quickest ?? results[0]
  if (subject === undefined) return { text: "", tiles: [] }
  // A variant of the library with less information is not a rival.
  const others = results.filter((one) => one !== subject && one.strategy !== "oracle" && !isPartlyTold(one.strategy))
  const lost = others
    .filter((one) => !isDone(one))
    .toSorted((a, b) => Number(isUsual(b)) - Number(isUsual(a)))
    .map(({ failedCalls, strategy }) => `${strategy} ${Words.thousands(failedCalls)}`)
  const quicker = others
    .filter((one) => isDone(one) && isDone(subject))
    .filter(({ makespanSeconds }) => makespanSeconds < noticeable * subject.makespanSeconds)
    .map(({ makespanSeconds, strategy }) => `${strategy} in ${seconds(makespanSeconds)}`)
  const installed = results.find(({ strategy }) => strategy === asInstalled)
  const sentences = [
    ofSubject(subject, figures),
    ...(installed === undefined || installed === subject || !isDone(installed)
      ? []
      : [
          `With default settings it takes ${seconds(installed.makespanSeconds)}, with ${rejections(installed.rejections)}.`
        ]),
    ...(lost.length === 0 ? [] : [`Others lost calls: ${listed(lost)}.`]),
    ...(quicker.length === 0 ? [] : [`Quicker: ${listed(quicker)}.`])
  ]
  return {
    text: sentences.join(" "),
    tiles: [
      answeredTile(
        calls - subject.failedCalls,
        calls,
        `calls answered by ${subject.strategy.replaceAll("-", "\u2011")}`
      ),
      {
        value: `${subject.finished ? "" : "> "}${seconds(subject.makespanSeconds)}`,
        label: `simulated; the floor is ${seconds(floorSeconds)}`
      },
      rejectionsTile(subject.rejections),
      {
        value: subject.p50Seconds === null ? "-" : seconds(subject.p50Seconds),
        label: "median latency, waits included"
      },
      tokensTile(subject.tokensUsed)
    ]
  }
}

/** A strategy within this factor of the oracle counts as equally good. */
const near = 1.05

const resultOf = ({ results }: RaceResults, name: string): RaceResults["results"][number] =>
  results.find(({ strategy }) => strategy === name)!

/** Compares a strategy with the oracle: in how many races it did all of the work, and where it was slowest. */
const againstOracle = (races: ReadonlyArray<RaceResults>, name: string) => {
  const done = races.filter((race) => isDone(resultOf(race, name)))
  const ratios = done
    .map((race) => ({
      name: race.name,
      ratio: resultOf(race, name).makespanSeconds / resultOf(race, "oracle").makespanSeconds
    }))
    .toSorted((a, b) => b.ratio - a.ratio)
  const [worst] = ratios
  const count = `${done.length} of ${Words.counted(races.length, "scenario")}`
  const furthest =
    worst === undefined || worst.ratio <= near
      ? ""
      : `; it is furthest behind in ${worst.name}: ${Words.percent(worst.ratio - 1, 0)}`
  return `all of the work in ${count}, within 5 % of the oracle in ${ratios.filter(({ ratio }) => ratio <= near).length}${furthest}.`
}

/** The fastest rival in each race that a strategy did not win. */
const quickerThan = (
  races: ReadonlyArray<RaceResults>,
  rivals: ReadonlyArray<string>,
  name: string
): ReadonlyArray<string> =>
  races.flatMap((race) => {
    const max = noticeable * resultOf(race, name).makespanSeconds
    const [best] = rivals
      .map((rival) => resultOf(race, rival))
      .filter((one) => isDone(one) && one.makespanSeconds < max)
      .toSorted((a, b) => a.makespanSeconds - b.makespanSeconds)
    return best === undefined ? [] : [`${best.strategy} in ${race.name} (${seconds(best.makespanSeconds)})`]
  })

/**
 * Summarises several races: the library with and without limits and counts, the other strategies that did most, and the faster ones.
 * For scenarios with other strategies than the first, such as those with several places, it only says how far the library is behind.
 *
 * @stability experimental
 * @category constructors
 * @since 0.2.0
 */
export const ofRaces = (all: ReadonlyArray<RaceResults>): Headline => {
  const [races = [], ...others] = tablesOf(all)
  const strategies = (races[0]?.results ?? []).map(({ strategy }) => strategy)
  const doneBy = (name: string): number => races.filter((race) => isDone(resultOf(race, name))).length
  if (!strategies.includes(told) || !strategies.includes("oracle")) return { text: "", tiles: [] }
  const hasInstalled = strategies.includes(asInstalled)
  const rivals = strategies.filter((name) => !name.startsWith("floodgate") && name !== "oracle")
  const secondsOf = (name: string): number => races.reduce((sum, race) => sum + resultOf(race, name).makespanSeconds, 0)
  const max = Math.max(0, ...rivals.map(doneBy))
  const best = rivals.filter((name) => doneBy(name) === max).toSorted((a, b) => secondsOf(a) - secondsOf(b))
  const quicker = (subject: string, name: string): ReadonlyArray<string> => {
    const some = quickerThan(races, rivals, name)
    return some.length === 0 ? [] : [`Quicker than ${subject}: ${listed(some)}.`]
  }
  const text = [
    ...(hasInstalled
      ? [
          `With default settings, Floodgate did ${againstOracle(races, asInstalled)}`,
          `With the limits and the token counts, it did ${againstOracle(races, told)}`
        ]
      : [`Floodgate did ${againstOracle(races, told)}`]),
    ...(max === 0 ? [] : [`Of the others, ${listed(best)} did all of the work in ${max}.`]),
    ...quicker("Floodgate with limits and token counts", told),
    ...(hasInstalled ? quicker("Floodgate with default settings", asInstalled) : []),
    ...others.map((table) => `In ${listed(table.map(({ name }) => name))}, Floodgate did ${againstOracle(table, told)}`)
  ]
  const shown = [asInstalled, told, "hand-written", "effect-limiter-tuned", "bottleneck-tuned", "sdk-2"]
  return {
    text: text.join(" "),
    tiles: shown
      .filter((name) => strategies.includes(name))
      .map((name) => ({
        value: `${doneBy(name)} of ${races.length}`,
        // Non-breaking hyphens keep the name on one line.
        label: `scenarios done by ${name.replaceAll("-", "\u2011")}`
      }))
  }
}
