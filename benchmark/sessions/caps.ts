/** How much of a cap in dollars sessions can use before a call is refused. The costs are the provider's, and not what the library counts. */
import type { Turn } from "./trace.ts"

/** Dollars for a million tokens: what Anthropic charges for Claude Sonnet 5, with a cache for five minutes. */
const price = { written: 2.5, read: 0.2, output: 10 }

const million = 1e6

/** What a call costs of which so many tokens are read from the cache. */
export const costOf = ({ output, prompt }: Turn, read: number): number =>
  ((prompt - read) * price.written + read * price.read + output * price.output) / million

/** The most that a call can cost if the tokens of its prompt are known: all of it is written, and all the output that it allows. */
const maxOf = ({ prompt }: Turn, maxTokens: number): number =>
  (prompt * price.written + maxTokens * price.output) / million

/** Follows what sessions spend under a cap. */
export class CappedRun {
  readonly dollars: number
  private readonly maxTokens: number
  private spent = 0
  private calls = 0
  private refusedAt: number | undefined
  private avoidableAt: number | undefined
  private wrongAt: number | undefined

  constructor(dollars: number, maxTokens: number) {
    this.dollars = dollars
    this.maxTokens = maxTokens
  }

  answered(turn: Turn, read: number): void {
    this.spent += costOf(turn, read)
    this.calls++
  }

  /** A call was refused that would have read so many tokens from the cache. */
  refused(turn: Turn, read: number): void {
    const { dollars, maxTokens, spent } = this
    this.refusedAt ??= spent
    if (spent + maxOf(turn, maxTokens) <= dollars) this.avoidableAt ??= spent
    if (spent + costOf(turn, read) <= dollars) this.wrongAt ??= spent
  }

  get row(): string {
    const { avoidableAt, calls, dollars, refusedAt, spent, wrongAt } = this
    const part = (dollars: number | undefined) => (dollars === undefined ? "none" : (dollars / this.dollars).toFixed(3))
    const cells = [calls, (spent / calls).toFixed(4), part(refusedAt), part(avoidableAt), part(wrongAt), part(spent)]
    return `${cells.join(" | ")} | ${spent > dollars ? `over by $${(spent - dollars).toFixed(4)}` : "no"}`
  }
}

export const head = [
  "| cap | offset | told | answered | mean cost | used at the first refusal | at one that the tokens of the prompt would avoid | at one of a call that fits | at the end | over |",
  `|${" --- |".repeat(10)}`
]
