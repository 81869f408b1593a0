/** The purses that pay for a call: one for each cap that applies to it, and one for its agent, which only counts. */
import { hash } from "node:crypto"
import * as Recency from "../input/recency.ts"
import * as Spending from "../Spending.ts"
import { keepingOf } from "../spending/cap.ts"
import type { Kept } from "../spending/ledger.ts"
import type { Status } from "../spending/purse.ts"
import type { Rule } from "./callers.ts"

/**
 * What was spent of the caps of a gateway, by names that are the same after a restart.
 *
 * @category models
 * @since 0.2.0
 */
export type Spent = Readonly<Record<string, Kept>>

/** The state of a cap. */
export interface CapStatus extends Status {
  readonly name: string
  readonly dollars: number
}

/** A key by its hash, which does not reveal it. */
export interface Key {
  readonly name: string
  readonly hash: string
}

/** The most purses that only count: as many as the page shows agents. */
const mostCounted = 1_000
/** From this number on, unused purses are removed. */
const fewPurses = 1_000
/** The most purses that are kept: callers can invent agents. Beyond it those are forgotten of which the least was spent. */
const mostPurses = 10_000
/** A longer name of an agent is kept as its hash. */
const longestName = 64

/** A hash of a text that does not reveal it, of 128 bits. */
export const digestOf = (text: string): string => hash("sha256", text).slice(0, 32)

const shortened = (name: string): string => (name.length <= longestName ? name : `sha256 ${digestOf(name)}`)

/** Describes the callers of a rule in words, without its keys and the values of its headers, which may be keys. */
const whoOf = ({ agent, headers = {}, key, model }: Rule): string => {
  const parts = [
    ...(agent === undefined ? [] : [`agent ${agent}`]),
    ...(model === undefined ? [] : [`model ${model}`]),
    ...Object.keys(headers).map((name) => `some ${name}`),
    ...(key === undefined ? [] : ["some keys"])
  ]
  return parts.length === 0 ? "all callers" : `callers with ${parts.join(", ")}`
}

/** A name for the callers of a rule that no other callers have. It does not reveal keys either. */
const idOf = (rule: Rule): string => {
  const { headers = {}, key } = rule
  const secret = [key, Object.entries(headers)]
  const isPlain = key === undefined && Object.keys(headers).length === 0
  return isPlain ? whoOf(rule) : `${whoOf(rule)} ${digestOf(JSON.stringify(secret))}`
}

/** Whether a purse is of all callers of a rule, and not of an agent or a key. */
const isPot = (id: string): boolean => id.startsWith('["rule"')

/** A cap that all callers of a rule share. */
interface Pot {
  readonly purse: Spending.Purse
  readonly cap: Spending.Cap
}

/** The purses of a gateway. It is mutable. */
export class Purses {
  private readonly counted = new Map<string, Spending.Purse>()
  private readonly capped = new Map<string, { readonly purse: Spending.Purse; cap: Spending.Cap }>()
  private readonly earlier: Map<string, Kept>
  private readonly spent: (agent: string, dollars: number) => void
  private readonly now: () => number
  /** The caps of the present rules, which are shown even before they are used. */
  private pots: ReadonlyArray<Pot> = []
  private sweepAt = fewPurses

  constructor(
    earlier: Spent,
    now: () => number,
    /** Called with what an agent has spent. */
    spent: (agent: string, dollars: number) => void
  ) {
    this.earlier = new Map(Object.entries(earlier))
    this.spent = spent
    this.now = now
  }

  /** The purses of a caller that these rules apply to. */
  of(fitting: ReadonlyArray<Rule>, agent: string, keysOf: () => ReadonlyArray<Key>): ReadonlyArray<Spending.Purse> {
    const purses = [this.agent(agent)]
    for (const rule of fitting) {
      const pot = this.pot(rule)
      if (pot !== undefined) purses.push(pot)
    }
    const byAgent = fitting.find(({ capPerAgent }) => capPerAgent !== undefined)
    if (byAgent !== undefined)
      purses.push(this.cap(byAgent.capPerAgent!, `agent ${agent}`, ["agent", idOf(byAgent), shortened(agent)]))
    const byKey = fitting.find(({ capPerKey }) => capPerKey !== undefined)
    if (byKey !== undefined) {
      for (const { hash, name } of keysOf()) {
        purses.push(this.cap(byKey.capPerKey!, `the key ${name}`, ["key", idOf(byKey), hash]))
      }
    }
    return purses
  }

  /** Shows the caps of these rules from now on, and returns them. */
  show(rules: ReadonlyArray<Rule>): ReadonlyArray<Pot> {
    this.pots = rules.flatMap((rule) => {
      const purse = this.pot(rule)
      return purse === undefined ? [] : [{ purse, cap: rule.cap! }]
    })
    return this.pots
  }

  /** The purse that all callers of a rule share. */
  private pot(rule: Rule): Spending.Purse | undefined {
    return rule.cap && this.cap(rule.cap, whoOf(rule), ["rule", idOf(rule), ""])
  }

  private agent(name: string): Spending.Purse {
    let purse = this.counted.get(name)
    if (purse === undefined) {
      let before = 0
      const made: Spending.Purse = Spending.make(name, undefined, {
        changed: () => {
          const dollars = made.internals.total
          if (dollars > before) this.spent(name, dollars - before)
          before = dollars
        }
      })
      purse = made
    }
    Recency.put(this.counted, name, purse, mostCounted)
    return purse
  }

  private cap(cap: Spending.Cap, name: string, parts: ReadonlyArray<string>): Spending.Purse {
    // With another period it is another cap; with another amount it is the same.
    const id = JSON.stringify([...parts, cap.per ?? null])
    const known = this.capped.get(id)
    if (known !== undefined) {
      if (known.cap !== cap) known.purse.internals.resize(keepingOf(cap), this.now())
      known.cap = cap
      return known.purse
    }
    if (this.capped.size >= this.sweepAt) this.sweep()
    const purse = Spending.make(parts[0] === "rule" ? this.unique(name, cap) : name, cap, {
      kept: this.earlier.get(id)
    })
    this.earlier.delete(id)
    this.capped.set(id, { purse, cap })
    return purse
  }

  /** A name that no other cap for the same period has. */
  private unique(name: string, { per }: Spending.Cap): string {
    const alike = [...this.capped.values()].filter((known) => JSON.stringify(known.cap.per) === JSON.stringify(per))
    const taken = new Set(alike.map(({ purse }) => purse.name))
    let unique = name
    for (let count = 2; taken.has(unique); count++) unique = `${name} (${count})`
    return unique
  }

  /**
   * Removes purses with nothing left to count, such as those of keys that the provider does not know, and those of which the
   * least was spent, if they are too many.
   */
  private sweep(): void {
    const now = this.now()
    const free = [...this.capped]
      .filter(([id, { purse }]) => !isPot(id) && purse.internals.ledger.held === 0)
      .map(([id, { purse }]) => ({ id, spent: purse.internals.ledger.spent(now) }))
      .sort((one, other) => one.spent - other.spent)
    const tooMany = this.capped.size - mostPurses
    for (const [at, { id, spent }] of free.entries()) if (spent === 0 || at < tooMany) this.capped.delete(id)
    this.sweepAt = Math.max(fewPurses, 2 * this.capped.size)
  }

  /** What an agent has spent since the gateway started, in dollars. */
  spentBy(agent: string): number {
    const purse = this.counted.get(agent)
    return purse === undefined ? 0 : purse.internals.total
  }

  /** The number of an agent's calls to models without a price. */
  unpricedBy(agent: string): number {
    const purse = this.counted.get(agent)
    return purse === undefined ? 0 : purse.internals.unpriced
  }

  /** The caps, those of which the largest part is used first. */
  caps(most: number): ReadonlyArray<CapStatus> {
    const now = this.now()
    const pots = new Set(this.pots.map(({ purse }) => purse.name))
    return [...this.capped.values()]
      .map(({ cap, purse }) => ({ name: purse.name, dollars: cap.dollars, ...purse.internals.status(now) }))
      .filter(({ held, name, spent }) => spent + held > 0 || pots.has(name))
      .sort((one, other) => used(other) - used(one))
      .slice(0, most)
  }

  /** What the gateway must know when it starts again. */
  get kept(): Spent {
    const now = this.now()
    const inUse = [...this.capped]
      .map(([id, { purse }]) => [id, purse.internals.ledger] as const)
      .filter(([, ledger]) => ledger.spent(now) > 0)
      .map(([id, { kept }]) => [id, kept] as const)
    const earlier = [...this.earlier].filter(([, { cells }]) => cells.some(({ ends }) => ends === null || ends > now))
    const all = [...earlier, ...inUse].map(([id, kept]) => ({
      id,
      kept,
      rank: isPot(id) ? Infinity : sumOf(kept)
    }))
    if (all.length > mostPurses) all.sort((one, other) => (one.rank === other.rank ? 0 : other.rank - one.rank))
    return Object.fromEntries(all.slice(0, mostPurses).map(({ id, kept }) => [id, kept]))
  }
}

/** What a purse has spent in the period of its cap. */
const sumOf = ({ cells }: Kept): number => cells.reduce((sum, { amount }) => sum + amount, 0)

const used = ({ dollars, held, spent }: CapStatus): number => (spent + held) / dollars
