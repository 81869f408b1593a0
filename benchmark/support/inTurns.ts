/**
 * Measures contenders so that the result can be trusted on a machine that other programs use, too.
 *
 * - It counts the processor time of the process under test, on which other programs have less influence than on the clock.
 * - Contenders take turns, and every other round is in reverse, so that a slow minute of the machine hits all of them.
 * - Ratios are taken within a round, and the median of the rounds counts. The quartiles of the rounds show the spread.
 */

import { fork } from "node:child_process"
import { thousands } from "../../src/domain/words.ts"

/** What one turn has done, and what it took. */
export interface Turn {
  readonly count: number
  /** Processor time of the process under test, all of its threads together. */
  readonly micros: number
  readonly seconds: number
}

export interface Contender {
  readonly name: string
  readonly turn: () => Promise<Turn>
}

/** The median of several rounds, and their quartiles. */
export interface Spread {
  readonly low: number
  readonly median: number
  readonly high: number
}

export interface Measured {
  readonly name: string
  /** Processor time of each operation, in microseconds. */
  readonly micros: Spread
  /** Operations per second of the clock. */
  readonly rate: Spread
  /** Operations per processor second, and per second of the clock, as parts of those of the base in the same round. */
  readonly byProcessor: Spread
  readonly byRate: Spread
}

export interface Plan {
  readonly rounds: number
  /** Rounds before these, which are not counted, because code is compiled while it runs. @default 2 */
  readonly warmups?: number | undefined
  /** The name of the contender that ratios refer to. @default the first */
  readonly base?: string | undefined
}

export const spreadOf = (values: ReadonlyArray<number>): Spread => {
  const sorted = values.toSorted((one, other) => one - other)
  const at = (part: number): number => {
    const place = (sorted.length - 1) * part
    const [low, high] = [sorted[Math.floor(place)]!, sorted[Math.ceil(place)]!]
    return low + (high - low) * (place % 1)
  }
  return { low: at(0.25), median: at(0.5), high: at(0.75) }
}

/** A turn that is made in this process. */
export const timed = async (count: number, run: () => unknown): Promise<Turn> => {
  globalThis.gc?.()
  const from = performance.now()
  const before = process.cpuUsage()
  await run()
  const { system, user } = process.cpuUsage(before)
  return { count, micros: system + user, seconds: (performance.now() - from) / 1_000 }
}

/** Lets contenders take turns. */
export const inTurns = async (
  contenders: ReadonlyArray<Contender>,
  { base = contenders[0]!.name, rounds, warmups = 2 }: Plan
): Promise<ReadonlyArray<Measured>> => {
  const found = new Map(contenders.map(({ name }) => [name, [] as Array<Turn>]))
  for (let round = 0; round < warmups + rounds; round++) {
    for (const { name, turn } of round % 2 === 0 ? contenders : contenders.toReversed()) {
      const taken = await turn()
      if (round >= warmups) found.get(name)!.push(taken)
    }
  }
  const bases = found.get(base)!
  return contenders.map(({ name }) => {
    const turns = found.get(name)!
    const each = (of: (turn: Turn, beside: Turn) => number) => spreadOf(turns.map((turn, i) => of(turn, bases[i]!)))
    return {
      name,
      micros: each(microsOf),
      rate: each(rateOf),
      byProcessor: each((turn, beside) => microsOf(beside) / microsOf(turn)),
      byRate: each((turn, beside) => rateOf(turn) / rateOf(beside))
    }
  })
}

const microsOf = ({ count, micros }: Turn): number => micros / count
const rateOf = ({ count, seconds }: Turn): number => count / seconds

// -----------------------------------------------------------------------------
// Tables
// -----------------------------------------------------------------------------

/** Three digits are enough. */
const digits = (value: number): number => Math.max(0, Math.min(2, 2 - Math.floor(Math.log10(value))))

/** A median with its quartiles. */
export const shown = ({ high, low, median }: Spread): string => {
  const text = (value: number): string => value.toFixed(digits(median))
  return `${text(median)} (${text(low)}-${text(high)})`
}

/** A table in Markdown. */
export const tableOf = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string =>
  [head, head.map((_, i) => (i === 0 ? "---" : "---:")), ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n")

/** The measurements as a table. `unit` names an operation. */
export const resultsOf = (title: string, unit: string, measured: ReadonlyArray<Measured>): string =>
  tableOf(
    [title, `us of processor time a ${unit}`, "ratio by processor time", `${unit}s a second`, "ratio by rate"],
    measured.map(({ byProcessor, byRate, micros, name, rate }) => [
      name,
      shown(micros),
      shown(byProcessor),
      thousands(Math.round(rate.median)),
      shown(byRate)
    ])
  )

// -----------------------------------------------------------------------------
// Processes
// -----------------------------------------------------------------------------

/**
 * Contenders with a process each, in which no other code has been compiled. `program` is called with the argument of its
 * contender, by default its name, and must call {@link serveTurns}.
 */
export const inProcesses = (
  program: string,
  names: ReadonlyArray<string>,
  argumentOf: (name: string) => string = (name) => name
) => {
  const children = new Map(names.map((name) => [name, fork(program, [argumentOf(name)])]))
  return {
    contenders: Array.from(children, ([name, child]): Contender => ({
      name,
      turn: () =>
        new Promise((resolve, reject) => {
          child.once("message", (turn) => resolve(turn as Turn))
          child.once("exit", (code) => reject(new Error(`${name}: its process ended with ${code}`)))
          child.send("turn")
        })
    })),
    end: (): void => children.forEach((child) => child.kill())
  }
}

/** Makes a turn whenever the parent process asks for one. */
export const serveTurns = (turn: () => Promise<Turn>): void =>
  void process.on("message", () => void turn().then((taken) => process.send!(taken)))
