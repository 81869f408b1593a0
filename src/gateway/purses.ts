/** The purses that pay for a call: one for each cap that applies to it, and one for its agent, which only counts. */
import * as Recency from "../input/recency.ts"
import * as Spending from "../Spending.ts"
import { keepingOf } from "../spending/cap.ts"
import type { Kept } from "../spending/ledger.ts"
import { behind, type Purse, type Status, totalOf } from "../spending/purse.ts"
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

/** Describes the callers of a rule in words, without its keys. */
const whoOf = ({ agent, headers = {}, key, model }: Rule): string => {
  const parts = [
    ...(agent === undefined ? [] : [`agent ${agent}`]),
    ...(model === undefined ? [] : [`model ${model}`]),
    ...Object.entries(headers).map(([name, text]) => `${name}: ${text}`),
    ...(key === undefined ? [] : ["some keys"])
  ]
  return parts.length === 0 ? "all callers" : `callers with ${parts.join(", ")}`
}

/** The purses of a gateway. It is mutable. */
export class Purses {
  private readonly counted = new Map<string, Spending.Purse>()
  private readonly capped = new Map<string, { readonly purse: Spending.Purse; cap: Spending.Cap }>()
  private readonly earlier: Map<string, Kept>
  private readonly spent: (agent: string, dollars: number) => void
  private readonly now: () => number
  /** The caps of rules, which are shown even before they are used. */
  private readonly pots = new Set<string>()
  private sweepAt = fewPurses

  constructor(
    rules: ReadonlyArray<Rule>,
    earlier: Spent,
    now: () => number,
    /** Called with what an agent has spent. */
    spent: (agent: string, dollars: number) => void
  ) {
    this.earlier = new Map(Object.entries(earlier))
    this.spent = spent
    this.now = now
    Purses.check(rules)
    for (const rule of rules) this.pot(rule)
  }

  /** Throws for invalid caps at once, and not at their first call. */
  static check(rules: ReadonlyArray<Rule>): void {
    for (const { cap, capPerAgent, capPerKey } of rules) {
      for (const each of [cap, capPerAgent, capPerKey]) if (each !== undefined) Spending.make("", each)
    }
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
      purses.push(this.cap(byAgent.capPerAgent!, `agent ${agent}`, ["agent", whoOf(byAgent), agent]))
    const byKey = fitting.find(({ capPerKey }) => capPerKey !== undefined)
    if (byKey !== undefined) {
      for (const { hash, name } of keysOf()) {
        purses.push(this.cap(byKey.capPerKey!, `the key ${name}`, ["key", whoOf(byKey), hash]))
      }
    }
    return purses
  }

  /** The purse that all callers of a rule share. */
  pot(rule: Rule): Spending.Purse | undefined {
    const { cap, key = "" } = rule
    if (cap === undefined) return undefined
    this.pots.add(whoOf(rule))
    return this.cap(cap, whoOf(rule), ["rule", whoOf(rule), key])
  }

  private agent(name: string): Spending.Purse {
    let purse = this.counted.get(name)
    if (purse === undefined) {
      let before = 0
      const made: Spending.Purse = Spending.make(name, undefined, {
        changed: () => {
          const dollars = totalOf(made)
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
      if (known.cap !== cap) innerOf(known.purse).resize(keepingOf(cap), this.now())
      known.cap = cap
      return known.purse
    }
    if (this.capped.size >= this.sweepAt) this.sweep()
    const purse = Spending.make(name, cap, { kept: this.earlier.get(id) })
    this.earlier.delete(id)
    this.capped.set(id, { purse, cap })
    return purse
  }

  /** Removes purses with nothing left to count, such as those of keys that the provider does not know. */
  private sweep(): void {
    const now = this.now()
    for (const [id, { purse }] of this.capped) {
      const { ledger } = innerOf(purse)
      if (ledger.held === 0 && ledger.spent(now) === 0) this.capped.delete(id)
    }
    this.sweepAt = Math.max(fewPurses, 2 * this.capped.size)
  }

  /** What an agent has spent since the gateway started, in dollars. */
  spentBy(agent: string): number {
    const purse = this.counted.get(agent)
    return purse === undefined ? 0 : totalOf(purse)
  }

  /** The number of an agent's calls to models without a price. */
  unpricedBy(agent: string): number {
    const purse = this.counted.get(agent)
    return purse === undefined ? 0 : innerOf(purse).unpriced
  }

  /** The caps, those of which the largest part is used first. */
  caps(most: number): ReadonlyArray<CapStatus> {
    const now = this.now()
    return [...this.capped.values()]
      .map(({ cap, purse }) => ({ name: purse.name, dollars: cap.dollars, ...innerOf(purse).status(now) }))
      .filter(({ held, name, spent }) => spent + held > 0 || this.pots.has(name))
      .sort((one, other) => used(other) - used(one))
      .slice(0, most)
  }

  /** What the gateway must know when it starts again. */
  get kept(): Spent {
    const now = this.now()
    const inUse = [...this.capped].filter(([, { purse }]) => innerOf(purse).ledger.spent(now) > 0)
    return Object.fromEntries([
      ...this.earlier,
      ...inUse.map(([id, { purse }]) => [id, innerOf(purse).ledger.kept] as const)
    ])
  }
}

const innerOf = (purse: Spending.Purse): Purse => behind.get(purse)!

const used = ({ dollars, held, spent }: CapStatus): number => (spent + held) / dollars
