/** The purses that pay for a call: one for each cap that applies to it, and one for its agent, which only counts. */
import { hash } from "node:crypto"
import * as Recency from "../input/recency.ts"
import * as Spending from "../Spending.ts"
import { keepingOf } from "../spending/cap.ts"
import { type Kept, perDollar } from "../spending/ledger.ts"
import { internalsOf, type Status } from "../spending/purse.ts"
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

/** Purses that only count are kept though nobody uses them: as many as the page shows agents. */
const maxCounted = 1_000
/** Beyond this, of a purse that nobody uses only what was spent is kept, in a few numbers. */
const maxOpen = 1_000
/**
 * The most caps of agents and keys of which something is spent: callers can invent agents, and what is known of them is written
 * to a file every 30 seconds. None of them is forgotten, because that would give it all of its cap again.
 */
const maxSpent = 20_000
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

interface Capped {
  readonly id: string
  readonly purse: Spending.Purse
  cap: Spending.Cap
}

/** A cap that all callers of a rule share. */
interface Pot {
  readonly purse: Spending.Purse
  readonly cap: Spending.Cap
}

/** The purses of a gateway. It is mutable. */
export class Purses {
  private readonly counted = new Map<string, Spending.Purse>()
  private readonly capped = new Map<string, Capped>()
  private readonly idleCounted = new Recency.Shedder(this.counted, (purse) => internalsOf(purse).isIdle)
  private readonly idleCapped = new Recency.Shedder(
    this.capped,
    ({ id, purse }) => !isPot(id) && internalsOf(purse).isIdle,
    (gone) => this.setAside(gone)
  )
  /** The cap of those for whom there is no room. */
  private readonly none = Spending.make(`further agents and keys (${maxSpent} have spent something of theirs)`, {
    dollars: 1 / perDollar
  })
  private readonly earlier: Map<string, Kept>
  private readonly spent: (agent: string, dollars: number) => void
  private readonly now: () => number
  /** The caps of the present rules, which are shown even before they are used. */
  private pots: ReadonlyArray<Pot> = []

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
          const dollars = internalsOf(made).total
          if (dollars > before) this.spent(name, dollars - before)
          before = dollars
        }
      })
      purse = made
    }
    this.counted.delete(name)
    this.counted.set(name, purse)
    this.idleCounted.shed(maxCounted)
    return purse
  }

  private cap(cap: Spending.Cap, name: string, parts: ReadonlyArray<string>): Spending.Purse {
    // With another period it is another cap; with another amount it is the same.
    const id = JSON.stringify([...parts, cap.per ?? null])
    const known = this.capped.get(id)
    if (known !== undefined) {
      if (known.cap !== cap) internalsOf(known.purse).resize(keepingOf(cap), this.now())
      known.cap = cap
      // Used last.
      this.capped.delete(id)
      this.capped.set(id, known)
      return known.purse
    }
    this.idleCapped.shed(maxOpen - 1)
    if (!this.hasRoomFor(id)) return this.none
    const purse = Spending.make(parts[0] === "rule" ? this.unique(name, cap) : name, cap, {
      kept: this.earlier.get(id)
    })
    this.earlier.delete(id)
    this.capped.set(id, { id, purse, cap })
    return purse
  }

  /** What was spent of a cap that nobody uses is kept. Nothing is of keys that the provider does not know, for example. */
  private setAside({ id, purse }: Capped): void {
    const { ledger } = internalsOf(purse)
    if (ledger.spent(this.now()) > 0) this.earlier.set(id, ledger.kept)
  }

  private hasRoomFor(id: string): boolean {
    const { capped, earlier } = this
    const hasRoom = () => isPot(id) || earlier.has(id) || capped.size + earlier.size < maxSpent
    if (hasRoom()) return true
    this.idleCapped.shed(maxOpen - 1, capped.size)
    const now = this.now()
    for (const [each, kept] of earlier) if (isOver(kept, now)) earlier.delete(each)
    return hasRoom()
  }

  /** A name that no other cap for the same period has. */
  private unique(name: string, { per }: Spending.Cap): string {
    const alike = [...this.capped.values()].filter((known) => JSON.stringify(known.cap.per) === JSON.stringify(per))
    const taken = new Set(alike.map(({ purse }) => purse.name))
    let unique = name
    for (let count = 2; taken.has(unique); count++) unique = `${name} (${count})`
    return unique
  }

  /** What an agent has spent since the gateway started, in dollars. */
  spentBy(agent: string): number {
    const purse = this.counted.get(agent)
    return purse === undefined ? 0 : internalsOf(purse).total
  }

  /** The number of an agent's calls to models without a price. */
  unpricedBy(agent: string): number {
    const purse = this.counted.get(agent)
    return purse === undefined ? 0 : internalsOf(purse).unpriced
  }

  /** The caps, those of which the largest part is used first. */
  caps(most: number): ReadonlyArray<CapStatus> {
    const now = this.now()
    const pots = new Set(this.pots.map(({ purse }) => purse.name))
    return [...this.capped.values()]
      .map(({ cap, purse }) => ({ name: purse.name, dollars: cap.dollars, ...internalsOf(purse).status(now) }))
      .filter(({ held, name, spent }) => spent + held > 0 || pots.has(name))
      .sort((one, other) => used(other) - used(one))
      .slice(0, most)
  }

  /** What the gateway must know when it starts again. */
  get kept(): Spent {
    const now = this.now()
    const inUse = [...this.capped]
      .map(([id, { purse }]) => [id, internalsOf(purse).ledger] as const)
      .filter(([, ledger]) => ledger.spent(now) > 0)
      .map(([id, { kept }]) => [id, kept] as const)
    const earlier = [...this.earlier].filter(([, kept]) => !isOver(kept, now))
    return Object.fromEntries([...earlier, ...inUse])
  }
}

/** A request that may pay from purses begins, until the result is called. Meanwhile they stay what they are. */
export const usePurses = (purses: ReadonlyArray<Spending.Purse>): (() => void) => {
  for (const purse of purses) internalsOf(purse).users++
  return () => {
    for (const purse of purses) internalsOf(purse).users--
  }
}

/** Whether nothing of what was spent counts any more. */
const isOver = ({ cells }: Kept, now: number): boolean => cells.every(({ ends }) => ends !== null && ends <= now)

const used = ({ dollars, held, spent }: CapStatus): number => (spent + held) / dollars
