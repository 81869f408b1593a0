/** What the figures of two commits say: whether a path is worse, or whether that cannot be said. Pure. */
import { type Spread, spreadOf } from "../support/inTurns.ts"

/** What one operation took. */
export interface Cost {
  readonly instructions: number
  readonly bytes: number
}

/** What two equal commits differ by at most, measured with `--against HEAD`. */
const noise: Cost = { instructions: 0.02, bytes: 0.015 }

/** With a wider spread a path that takes 5 % more would not be noticed. */
const widest = 0.05

/** How a figure changed. */
export interface Compared {
  /** What an operation takes now: the median of the turns. */
  readonly now: number
  /** How many times as much a turn takes as the same turn of the other commit. */
  readonly ratio: Spread
  /** The part by which turns differ from the median; half of the distance of the quartiles. */
  readonly spread: number
  readonly verdict: "worse" | "unclear" | "same"
}

/** Compares the turns of a path with the same turns of the other commit. Worse is a median above 1 by more than its spread and the noise. */
export const compare = (ours: ReadonlyArray<Cost>, theirs: ReadonlyArray<Cost>, what: keyof Cost): Compared => {
  const ratio = spreadOf(ours.map((cost, n) => cost[what] / theirs[n]![what]))
  const spread = (ratio.high - ratio.low) / 2
  const orUnclear = spread > widest ? "unclear" : "same"
  return {
    now: spreadOf(ours.map((cost) => cost[what])).median,
    ratio,
    spread,
    verdict: ratio.median - 1 > Math.max(noise[what], spread) ? "worse" : orUnclear
  }
}

/** What a path has taken, as a line of `benchmark/figures.jsonl` has it. Ratios are those to the commit `against`. */
export interface RecordedFigure {
  readonly instructions: number
  readonly byInstructions: Spread
  readonly bytes: number
  readonly byBytes: Spread
}

/** A line of `benchmark/figures.jsonl`: what was found at a commit. */
export interface RecordedFigures {
  readonly commit: string
  readonly against: string
  readonly node: string
  readonly figures: Readonly<Record<string, RecordedFigure>>
}

/** The commits of a file of figures, the latest first. */
export const recorded = (file: string): ReadonlyArray<string> =>
  file
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => (JSON.parse(line) as RecordedFigures).commit)
    .toReversed()

const percent = (part: number): string => `${(100 * part).toFixed(1)} %`

const words: Readonly<Record<keyof Cost, string>> = { instructions: "executes", bytes: "allocates" }

/** What to say of a path: a word for the table, and a sentence for each figure that is worse or unclear. */
export const sentences = (
  name: string,
  against: string,
  { bytes, instructions }: Readonly<Record<keyof Cost, Compared>>
): { readonly word: string; readonly worse: ReadonlyArray<string>; readonly unclear: ReadonlyArray<string> } => {
  const of = [["instructions", instructions] as const, ["bytes", bytes] as const]
  const verdicts = of.map(([, { verdict }]) => verdict)
  return {
    word: (["worse", "unclear"] as const).find((verdict) => verdicts.includes(verdict)) ?? "",
    worse: of
      .filter(([, { verdict }]) => verdict === "worse")
      .map(([what, { ratio, spread }]) => {
        const more = `${name} ${words[what]} ${percent(ratio.median - 1)} more`
        return `${more}: worse than the last, ${against}, by more than its spread of ${percent(spread)}`
      }),
    unclear: of
      .filter(([, { verdict }]) => verdict === "unclear")
      .map(([what, { spread }]) => {
        const more = `what ${name} ${words[what]} differs by ${percent(spread)} between turns`
        return `cannot judge: ${more}, more than the ${percent(widest)} that must be noticed: --only ${name} --turns 30`
      })
  }
}
